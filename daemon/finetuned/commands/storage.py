"""The way in for what makes room on the disk: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

from dataclasses import dataclass

from finetuned.commands.appending import Appending
from finetuned.domain import retention


@dataclass(frozen=True, slots=True)
class StorageCommands:
    """What can be removed. Each method returns after its events are on disk; files go afterwards."""

    appending: Appending

    async def remove_files(self, job_id: str, *, reason: str, size: int, actor: str) -> bool:
        """Have the files of an ended job removed; whether they were still there.

        Raises ``NotFoundError``, or ``Rejected`` while a model, a dataset or a live job needs them.
        """
        events = await self.appending.log.execute(
            lambda world: retention.remove_files(world, job_id, reason=reason, size=size, actor=actor),
            necessary=True,
        )
        return bool(events)
