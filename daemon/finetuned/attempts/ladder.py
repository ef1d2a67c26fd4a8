"""The ladder: how an attempt that is to end is brought to it, from a request to the kill of all that it left.

The worker is asked in ``control.json``. If it does not obey in time, its runner is sent SIGTERM, which it passes on, and
after its grace it kills everything below it. Only a runner that does not even do that is killed by the daemon. Each step
that had to be taken by force is recorded before it is taken.
"""

from __future__ import annotations

import logging
import math
import signal
from dataclasses import dataclass, replace
from typing import Final

import anyio
from anyio import to_thread

from finetuned.attempts import identity
from finetuned.attempts.ports import AttemptLog, Intervention, LiveAttempt, StopOrder
from finetuned.attempts.watch import ProcessWatch
from finetuned_sdk.bundle import Bundle, BundleError

logger = logging.getLogger(__name__)

DEAF_S: Final = 10.0  # seconds after its kill was due, before a runner that killed nothing counts as deaf
GRACE_S: Final = 10.0  # of a worker whose specification cannot be read


@dataclass(frozen=True, slots=True)
class _Bounds:
    tag: str
    grace_s: float


class Ladder:
    """Carries out the order to end an attempt; a new order takes the place of one that is being carried out."""

    def __init__(
        self, attempt: LiveAttempt, bundle: Bundle, log: AttemptLog, *, deaf_s: float = DEAF_S
    ) -> None:
        self._job = attempt.job
        self._number = attempt.number
        self._bundle = bundle
        self._log = log
        self._deaf_s = deaf_s
        self._order: StopOrder | None = None
        self._asked = anyio.Event()
        self._asked_at: float | None = None  # when the worker was first asked to end
        self._patient_until = math.inf  # and until when it is given for that

    @property
    def is_ordered(self) -> bool:
        """Whether the attempt is to end."""
        return self._order is not None

    def order(self, order: StopOrder) -> None:
        """Have the attempt ended. The same order again changes nothing.

        A later order may shorten the time that the worker has, and never prolongs it: who pauses and resumes without end
        would keep a deaf one for ever. Once its time is over, one that only has less patience changes nothing.
        """
        if self._order is None or self._differs(order) or self._is_shorter(order):
            self._order = order
            self._asked.set()

    def _differs(self, order: StopOrder) -> bool:
        return self._order is None or replace(order, patience_s=self._order.patience_s) != self._order

    def _is_shorter(self, order: StopOrder) -> bool:
        """Whether the worker still has time, and would have less."""
        now = anyio.current_time()
        return now < self._patient_until and now + order.patience_s < self._patient_until < math.inf

    async def run(self, watch: ProcessWatch) -> None:
        """Carry out what is ordered, until cancelled: the process of ``watch``, the runner, has ended then."""
        while True:
            await self._asked.wait()
            self._asked = anyio.Event()
            assert self._order is not None
            await self._descend(self._order, watch)

    async def _descend(self, order: StopOrder, watch: ProcessWatch) -> None:
        """Every step after the one before has had its time; returns when there is a new order."""
        if order.force:
            await self._kill(watch)
            return
        await self._ask(order)
        now = anyio.current_time()
        self._asked_at = now if self._asked_at is None else self._asked_at
        self._patient_until = min(self._patient_until, now + order.patience_s)
        if await self._is_superseded(self._patient_until - now):
            return
        if order.patience_s > 0:
            had = self._patient_until - self._asked_at
            await self._record(order, "terminate", f"it did not stop within {had:g} s")
        watch.signal(signal.SIGTERM)
        watch.signal(signal.SIGCONT)  # one that stands still hears nothing
        bounds = await to_thread.run_sync(self._bounds)
        if await self._is_superseded(bounds.grace_s):
            return
        await self._record(order, "kill", f"it did not end within {bounds.grace_s:g} s of SIGTERM")
        while not await self._is_superseded(self._deaf_s):
            watch.signal(signal.SIGCONT)
            if await to_thread.run_sync(identity.leftovers, bounds.tag, None):
                await self._record(order, "kill", "its runner does not react, and is killed")
                watch.signal(signal.SIGKILL)

    async def _kill(self, watch: ProcessWatch) -> None:
        """Kill the runner; what it leaves is killed when its end is looked into."""
        while True:
            watch.signal(signal.SIGKILL)
            if await self._is_superseded(self._deaf_s):
                return

    async def _is_superseded(self, seconds: float) -> bool:
        """Wait; whether another order came meanwhile."""
        with anyio.move_on_after(seconds):
            await self._asked.wait()
        return self._asked.is_set()

    async def _record(self, order: StopOrder, action: str, why: str) -> None:
        what = Intervention(action=action, failure=order.failure, reason=f"{why}: {order.reason}")
        logger.warning("attempt %d of job %s: %s: %s", self._number, self._job, action, what.reason)
        try:
            await self._log.intervened(self._job, self._number, what)
        except Exception as error:  # noqa: BLE001 - a full disk, say: what is to end ends all the same
            logger.warning("job %s: that could not be recorded: %r", self._job, error)

    async def _ask(self, order: StopOrder) -> None:
        try:
            await to_thread.run_sync(self._write_request, order)
        except OSError as error:  # a full disk; the signal says the same
            logger.warning("job %s: control.json cannot be written: %s", self._job, error)

    def _write_request(self, order: StopOrder) -> None:
        self._bundle.request_stop(order.reason, checkpoint=order.checkpoint)

    def _bounds(self) -> _Bounds:
        try:
            spec = self._bundle.read_spec()
        except BundleError:
            return _Bounds(f"{self._job}/{self._number}/", GRACE_S)
        return _Bounds(spec.tag, spec.grace_s)
