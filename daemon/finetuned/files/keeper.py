"""Lets files go whose time is over."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import anyio

from finetuned.commands.files import FileCommands
from finetuned.patience import patiently

log = logging.getLogger(__name__)

LOOK_S: Final = 20.0  # seconds between two looks; times are told in whole seconds


@dataclass(slots=True)
class FileKeeper:
    """Frees the names of files that have expired; at its start it removes what nobody names."""

    commands: FileCommands
    look_s: float = LOOK_S

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            await patiently("Looking for content that no file has", self.commands.sweep)
        except OSError as error:
            log.warning("Content that no file has stays until the next start: %s", error)
        while True:
            await patiently("Looking for files that have expired", self.commands.expire)
            await anyio.sleep(self.look_s)
