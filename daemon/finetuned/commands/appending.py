"""What is asked for is decided and appended, once for each ``Idempotency-Key``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from finetuned.board import Board
from finetuned.domain import idempotency
from finetuned.domain.idempotency import Once
from finetuned.domain.world import World
from finetuned.store import Log
from finetuned_events import Event, NewEvent

Decide = Callable[[World], list[NewEvent]]


@dataclass(frozen=True, slots=True)
class Appended:
    """The stream that came of a request, now or when it came first, and the events that are new."""

    subject: str
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Appending:
    """The log as commands append to it. ``now`` is the wall clock in microseconds since the epoch."""

    log: Log
    board: Board
    now: Callable[[], int] = field(default=lambda: time.time_ns() // 1000)

    async def earlier(self, once: Once | None) -> str | None:
        """The stream that came of the same request before, if it did.

        Look here before anything else is checked: what was so then need not hold any more. Raises
        ``IdempotencyKeyReusedError``.
        """
        if once is None:
            return None
        before = idempotency.earlier(await self.board.world(), once, now=self.now())
        once.replayed = before is not None
        return None if before is None else before.subject

    async def execute(
        self, decide: Decide, *, subject: str, actor: str, once: Once | None, necessary: bool = False
    ) -> Appended:
        """Append what is decided, if ``once`` was not carried out before. Raises what ``decide`` raises.

        ``necessary``: it is to be done on a full disk too, as what ends work or makes room.
        """
        if once is None:
            return Appended(subject, await self.log.execute(decide, necessary=necessary))
        found, now = subject, self.now()

        def decide_once(world: World) -> list[NewEvent]:
            nonlocal found
            before = idempotency.earlier(world, once, now=now)
            once.replayed = before is not None
            if before is not None:
                found = before.subject
                return []
            return [*decide(world), idempotency.accepted(once, subject, actor=actor)]

        events = await self.log.execute(decide_once, necessary=necessary)
        return Appended(found, events)
