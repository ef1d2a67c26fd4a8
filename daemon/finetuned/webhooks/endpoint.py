"""The deliveries to one webhook: in the order of the log, one at a time, from its place on, until it is cancelled.

How far they have come is recorded after so many of them or so many seconds, so a crash repeats some, with the same
ids; each try that fails is recorded at once, so that a restart goes on counting.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio

from finetuned.domain import facts, subscriptions, webhook_decisions
from finetuned.domain.errors import FinetunedError
from finetuned.domain.job import Job
from finetuned.domain.registers import Webhook
from finetuned.domain.world import World
from finetuned.patience import patiently
from finetuned.store import Log, job_from, queries
from finetuned.webhooks import payload, schedule
from finetuned.webhooks.keys import WebhookKeys
from finetuned.webhooks.payload import Message
from finetuned.webhooks.sender import GONE, Line, Outcome, Sender
from finetuned_events import Event, LogError, LogFullError, NewEvent

log = logging.getLogger(__name__)

PAGE: Final = 100  # events that are looked at together
RECORD_EVERY: Final = 100  # deliveries
RECORD_AFTER_S: Final = 5.0  # the first delivery that is not recorded
RECORD_SCANNED: Final = 10_000  # events that were passed over
RECORD_LAST_S: Final = 5.0  # that the end of a daemon waits for the log


@dataclass(frozen=True, slots=True)
class Clock:
    """Time: ``monotonic`` and ``wall`` in seconds, and a sleep of so many."""

    monotonic: Callable[[], float] = field(default=anyio.current_time)
    wall: Callable[[], float] = field(default=time.time)
    sleep: Callable[[float], Awaitable[None]] = field(default=anyio.sleep)


class _DisabledError(Exception):
    """It was disabled: there is nothing more to send."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """``position`` is up to where all was sent; ``tries`` of what follows failed, the next is at ``next_try_at`` (Unix time)."""

    webhook: Webhook
    log: Log
    keys: WebhookKeys
    sender: Sender
    clock: Clock
    jitter: Callable[[], float]
    position: int = field(init=False)
    tries: int = field(init=False)
    next_try_at: float | None = None
    _due: float = 0.0  # monotonic time before which nothing is tried
    _recorded: int = field(init=False)  # position as the log has it
    _unrecorded: int = 0  # deliveries since
    _since: float = 0.0  # monotonic time of the first of them
    _record_at: float = 0.0  # monotonic time before which it is not recorded how far it has come
    _wanted: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.position = self._recorded = self.webhook.since
        self.tries = self.webhook.tries
        self._wanted = subscriptions.matched(self.webhook.types)

    async def run(self) -> None:
        """Deliver until cancelled, or until it is disabled."""
        self._take_up()
        try:
            async with self.sender.line(self.webhook.url) as line:
                while True:
                    await self._page(line)
        except _DisabledError:
            return
        finally:
            await self._record_last()

    def _take_up(self) -> None:
        """Wait for what is left of a delay that began before this daemon did."""
        if not self.tries or self.webhook.failed_at is None:
            return
        since_s = self.clock.wall() - self.webhook.failed_at / 1e6
        self._wait_for(schedule.left_s(self.tries, since_s))

    async def _page(self, line: Line) -> None:
        types = subscriptions.native(self._wanted)
        look = partial(self.log.scan, after=self.position, limit=PAGE, types=types)
        page = await patiently("A webhook", look)
        for event in page.events:
            for message in payload.messages(event, self._wanted, await self._job(event)):
                await self._deliver(line, message)
            self.position = event.seq
            self._count(event)
            await self._record_if_due()
        self.position = max(self.position, page.scanned)
        await self._record_if_due()
        if not page.events and self.position >= self.log.head:
            await self._rest()

    async def _job(self, event: Event) -> Job | None:
        """The job that has ended; ``None`` for other events."""
        if event.type not in payload.ENDS:
            return None
        job_id = event.stream.removeprefix("job/")
        rows = await patiently("A webhook", lambda: self.log.fetch(queries()["select_job"], (job_id,)))
        return job_from(rows[0][0]) if rows else None

    # ---- one message -------------------------------------------------------------------------------------

    async def _deliver(self, line: Line, message: Message) -> None:
        """Try until the receiver has it. Raises ``_DisabledError`` when there is no further try."""
        while True:
            await self._until_due()
            outcome = await self._try(line, message)
            if outcome.taken:
                self.tries, self.next_try_at = 0, None
                return
            await self._failed(outcome)

    async def _until_due(self) -> None:
        left = self._due - self.clock.monotonic()
        if left > 0:
            await self.clock.sleep(left)

    async def _try(self, line: Line, message: Message) -> Outcome:
        try:
            keys = self.keys.good(await self.keys.read(self.webhook.id))
        except FinetunedError as error:
            return Outcome(error=error.message)
        return await line.send(message, keys)

    async def _failed(self, outcome: Outcome) -> None:
        self.tries += 1
        fact = facts.WebhookFailed(
            id=self.webhook.id, upto=self.position, tries=self.tries, reason=outcome.reason
        )
        wait_s = schedule.delay_s(self.tries, jitter=self.jitter(), retry_after_s=outcome.retry_after_s)
        if outcome.status == GONE:
            await self._disable(fact, "the receiver is gone: it answered 410")
        if wait_s is None:
            await self._disable(fact, f"{self.tries} tries failed over days; at the last {outcome.reason}")
        else:
            await self._append(lambda world: webhook_decisions.failed(world, fact, turn=self.webhook.turn))
            self._wait_for(wait_s)

    async def _disable(self, fact: facts.WebhookFailed, reason: str) -> None:
        self.next_try_at = None
        log.warning("The webhook %s is disabled: %s", self.webhook.id, reason)
        await self._append(
            lambda world: webhook_decisions.disable(world, fact, reason, turn=self.webhook.turn),
            necessary=True,
        )
        raise _DisabledError

    def _wait_for(self, seconds: float) -> None:
        self._due = self.clock.monotonic() + seconds
        self.next_try_at = self.clock.wall() + seconds

    # ---- how far it has come -----------------------------------------------------------------------------

    def _count(self, event: Event) -> None:
        # To record that such a record was sent would be one more of them to send, for ever.
        if event.type == facts.WebhookDelivered.type:
            return
        if not self._unrecorded:
            self._since = self.clock.monotonic()
        self._unrecorded += 1

    @property
    def _record_in_s(self) -> float | None:
        """Seconds until it is to be recorded how far deliveries have come; ``None`` if nothing is to be."""
        if self.position - self._recorded >= RECORD_SCANNED or self._unrecorded >= RECORD_EVERY:
            due = self._record_at
        elif self._unrecorded:
            due = max(self._record_at, self._since + RECORD_AFTER_S)
        else:
            return None
        return max(0.0, due - self.clock.monotonic())

    async def _record_if_due(self) -> None:
        if self._record_in_s == 0.0:
            await self._append(self._decide_delivered)

    def _decide_delivered(self, world: World) -> list[NewEvent]:
        return webhook_decisions.delivered(world, self.webhook.id, turn=self.webhook.turn, upto=self.position)

    async def _append(self, decide: Callable[[World], list[NewEvent]], *, necessary: bool = False) -> None:
        """Record something that says how far deliveries have come, unless the disk is full.

        Then deliveries go on unrecorded: what a full disk does to jobs is what receivers want to be told of, and a
        daemon that ends meanwhile delivers again. What is ``necessary`` takes of the reserve, or is waited for.
        """

        async def execute() -> bool:
            try:
                await self.log.execute(decide, necessary=necessary)
            except LogFullError:
                if necessary:
                    raise
                return False
            return True

        if await patiently("A webhook", execute):
            self._recorded, self._unrecorded = self.position, 0
        else:
            self._record_at = self.clock.monotonic() + RECORD_AFTER_S

    async def _record_last(self) -> None:
        """What was delivered is not to be delivered again after an orderly end."""
        if not self._unrecorded:
            return
        with anyio.move_on_after(RECORD_LAST_S, shield=True):
            try:
                await self.log.execute(self._decide_delivered)
            except LogError:
                return  # then it is delivered again

    async def _rest(self) -> None:
        """Wait until there is more in the log, or something to record."""
        record_in_s = self._record_in_s
        async with anyio.create_task_group() as tasks:
            if record_in_s is not None:

                async def wake() -> None:
                    await self.clock.sleep(record_in_s)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(wake)
            await patiently("A webhook", lambda: self.log.wait(self.position))
            tasks.cancel_scope.cancel()
