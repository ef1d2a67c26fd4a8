"""The watch over a live attempt: looks at its signs of life and does what follows from them.

What is seen is judged in :mod:`finetuned.attempts.liveness`; how it is stopped is :mod:`finetuned.attempts.ladder`.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import Final

import anyio
from anyio import to_thread

from finetuned.attempts import identity
from finetuned.attempts.ladder import Ladder
from finetuned.attempts.liveness import Finding, Liveness, Signs, look_interval
from finetuned.attempts.ports import Alert, AttemptLog, Intervention, LiveAttempt, NoRoomError, StopOrder
from finetuned.attempts.tail import SpoolTail
from finetuned.attempts.watch import ProcessWatch
from finetuned_sdk import heartbeat
from finetuned_sdk.bundle import Bundle, BundleError, RunnerIdentity, Spec

logger = logging.getLogger(__name__)

SINCE_PROTOCOL: Final = 2  # workers write heartbeats, and runners pass SIGUSR1 on


class Monitor:
    """Looks at one attempt until it is ordered to end."""

    def __init__(
        self, attempt: LiveAttempt, bundle: Bundle, log: AttemptLog, tail: SpoolTail, ladder: Ladder
    ) -> None:
        self._attempt = attempt
        self._bundle = bundle
        self._log = log
        self._tail = tail
        self._ladder = ladder

    async def run(self, runner: RunnerIdentity, watch: ProcessWatch) -> None:
        """Look again and again; returns once the attempt is to end, from whomever the order came, or has ended."""
        spec = await to_thread.run_sync(self._spec)
        timeouts = self._attempt.timeouts
        speaks = spec is not None and spec.protocol >= SINCE_PROTOCOL
        liveness = Liveness(
            timeouts,
            purpose=self._attempt.purpose,
            beats_s=spec.heartbeat_s if spec is not None and speaks else None,
            spent_s=self._attempt.spent_s,
        )
        # Nothing is judged of the dead: what they wrote may still be on its way into the log, and how they ended is
        # known only then.
        while not self._ladder.is_ordered and not watch.has_ended():
            signs = await to_thread.run_sync(self._look, runner)
            finding = liveness.look(signs)
            if finding is not None and not self._ladder.is_ordered and not watch.has_ended():
                try:
                    await self._act(finding, runner, watch, may_dump=speaks and signs.heartbeat is not None)
                except NoRoomError as error:  # found again at the next look, if it is still so
                    logger.warning("job %s: that could not be recorded: %s", self._attempt.job, error)
            await anyio.sleep(look_interval(timeouts))

    async def _act(
        self, finding: Finding, runner: RunnerIdentity, watch: ProcessWatch, *, may_dump: bool
    ) -> None:
        job, number = self._attempt.job, self._attempt.number
        logger.warning("attempt %d of job %s: %s: %s", number, job, finding.action, finding.reason)
        if finding.failure is None:
            alert = Alert(subject="silence", message=finding.reason, figures=finding.figures)
            await self._log.intervened(job, number, alert)
            return
        intervention = Intervention(action=finding.action, failure=finding.failure, reason=finding.reason)
        if finding.action == "dump_stacks":
            # An older runner, or one that has just begun, would die of the signal.
            if may_dump and await to_thread.run_sync(identity.catches, runner.pid, signal.SIGUSR1):
                await self._log.intervened(job, number, intervention)
                watch.signal(signal.SIGUSR1)
            return
        await self._log.intervened(job, number, intervention)
        order = StopOrder(
            reason=finding.reason,
            checkpoint=True,
            patience_s=self._attempt.timeouts.pause_s,
            failure=finding.failure,
        )
        self._ladder.order(order)

    def _look(self, runner: RunnerIdentity) -> Signs:
        beat = heartbeat.read(self._bundle.heartbeat_path)
        return Signs(
            now=time.monotonic(),
            ran_s=identity.ran_s(runner),
            heartbeat=beat,
            work=self._tail.work,
            step=self._tail.step,
            phase=self._tail.phase,
            is_stopped=beat is not None and identity.state(beat.pid) == "T",
            has_ended=beat is not None and identity.state(beat.pid) == "Z",
        )

    def _spec(self) -> Spec | None:
        try:
            return self._bundle.read_spec()
        except BundleError:
            return None


def lived_s(bundle: Bundle, runner: RunnerIdentity) -> dict[str, float]:
    """How long an attempt ran that nobody saw end: ``wall_s`` up to its last heartbeat, if it had one.

    Of an earlier boot, all time that the machine was suspended in it is left out: a heartbeat is on a clock that stood
    still then, a start on one that went on, and how far they were apart is known only within a boot.
    """
    beat = heartbeat.read(bundle.heartbeat_path)
    if beat is None:
        return {}
    if runner.boot_id == identity.boot_id():
        ran_s = identity.ran_s(runner) - (time.monotonic() - beat.beat_at)
    else:
        ran_s = beat.beat_at - identity.started_s(runner)
    return {"wall_s": round(max(0.0, ran_s), 3)}
