"""Removes the files of ended jobs by age and by size, if the operator wants that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from finetuned.board import Board
from finetuned.commands.storage import StorageCommands
from finetuned.domain import dependencies, retention
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.retention import Policy
from finetuned.patience import patiently
from finetuned.storage.inventory import Inventory

log = logging.getLogger(__name__)

LOOK_S: Final = 60.0  # seconds between two looks at what is on disk
FIRST_LOOK_S: Final = 2.0  # after the start, which needs the disk itself
ACTOR: Final = "retention"


@dataclass(slots=True)
class Keeper:
    """Looks at what takes the disk, and at each look removes what ``policy`` keeps no longer.

    ``now`` is the wall clock in microseconds since the epoch: ages are told in days.
    """

    board: Board
    inventory: Inventory
    commands: StorageCommands
    policy: Policy
    now: Callable[[], int] = lambda: time.time_ns() // 1000
    look_s: float = LOOK_S

    async def run(self) -> None:
        """Look until cancelled."""
        await anyio.sleep(min(FIRST_LOOK_S, self.look_s))
        while True:
            try:
                await patiently("Looking at what takes the disk", self.look)
            except OSError as error:
                log.warning("What takes the disk cannot be looked at: %s", error)
            await anyio.sleep(self.look_s)

    async def look(self) -> None:
        """Look once, and remove what is due; what is needed stays."""
        taken = await self.inventory.look()
        if self.policy.keeps_all:
            return
        stays = dependencies.needed(await self.board.world())
        free = [each for each in taken.ended if each.job not in stays]
        needed = taken.ended_jobs - sum(each.bytes for each in free)
        for due in retention.due(free, self.policy, now=self.now(), needed=needed):
            try:
                removed = await self.commands.remove_files(
                    due.kept.job, reason=due.reason, size=due.kept.bytes, actor=ACTOR
                )
            except (Rejected, NotFoundError):  # needed, or deleted, since
                continue
            if removed:
                log.info("The files of %s (%d bytes) go: %s", due.kept.job, due.kept.bytes, due.reason)
