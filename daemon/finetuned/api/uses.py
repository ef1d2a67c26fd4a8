"""When tokens were last used, written down now and then: no request waits for it."""

from __future__ import annotations

import logging

import anyio

from finetuned.commands.door import Commands
from finetuned.domain.registers import Token
from finetuned.domain.tokens import use_is_worth_recording
from finetuned_events import LogError

log = logging.getLogger(__name__)

GATHER_S = 1.0  # how long uses are gathered for one commit


class TokenUses:
    """Notes the use of tokens, and records each at most once an hour. :meth:`run` it beside the server."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._noted: set[str] = set()
        self._wake = anyio.Event()

    def note(self, token: Token, now: int) -> None:
        """The token opened the door at ``now``. Costs nothing if that need not be recorded."""
        if use_is_worth_recording(token, now):
            self._noted.add(token.id)
            self._wake.set()

    async def run(self) -> None:
        """Record what was noted, until cancelled."""
        while True:
            await self._wake.wait()
            await anyio.sleep(GATHER_S)
            self._wake, noted, self._noted = anyio.Event(), self._noted, set()
            try:
                await self._commands.tokens.record_uses(noted)
            except LogError as error:  # the next use is noted again
                log.warning("The use of %d tokens could not be recorded: %s", len(noted), error)
