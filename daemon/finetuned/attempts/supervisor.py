"""One attempt seen from the daemon: started if it is not, followed, stopped if asked, and ended with proof.

The supervisor looks at what is there and goes on from it, so a fresh launch and a re-attachment after the
daemon's death are the same code.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from finetuned.attempts import identity, temporary
from finetuned.attempts.ladder import DEAF_S, Ladder
from finetuned.attempts.launcher import Executor
from finetuned.attempts.monitor import Monitor, lived_s
from finetuned.attempts.ports import (
    AttemptLog,
    Ending,
    LiveAttempt,
    NoRoomError,
    SpecUnavailableError,
    StopOrder,
)
from finetuned.attempts.tail import SpoolTail
from finetuned.attempts.watch import ProcessWatch
from finetuned_sdk import manifest
from finetuned_sdk.bundle import Bundle, BundleError, ExitRecord, Revocation, RunnerIdentity, Spec
from finetuned_sdk.manifest import ManifestError
from finetuned_sdk.spool import BadLine, Fact

logger = logging.getLogger(__name__)

#: There is no room on the disk, or no more for this user: it passes, and costs no attempt.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How patient a supervisor is, in seconds."""

    start: float = 30.0  # for a runner to claim its bundle
    start_poll: float = 0.01  # between two looks for the claim, doubled up to poll
    poll: float = 0.05  # between two looks at a spool that grows, doubled up to …
    poll_idle: float = 0.25  # … between two looks at one that does not
    sweep: float = 0.05  # between two rounds of killing leftovers, doubled up to …
    sweep_max: float = 1.0
    no_room: float = 1.0  # between two tries to record on a full disk
    deaf: float = DEAF_S  # for a runner to kill what is below it, once its time is over


DEFAULT_TIMING: Final = Timing()


class Supervisor:
    """Sees one attempt through to its end."""

    def __init__(
        self,
        attempt: LiveAttempt,
        bundle: Bundle,
        log: AttemptLog,
        executor: Executor,
        *,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self.attached = anyio.Event()  # set once it is known who runs the attempt
        self._job = attempt.job
        self._number = attempt.number
        self._bundle = bundle
        self._log = log
        self._executor = executor
        self._timing = timing
        self._tail = SpoolTail(bundle.spool_path, line=attempt.line)
        self._unrecorded: list[Fact | BadLine] = []  # that were read
        self._waits_for_room = False
        self._news = anyio.Event()
        self._checkpoints = attempt.checkpoints  # that were asked for
        self._checkpoint_asked = anyio.Event()
        self._asked: str | None = None  # why it is to end
        self._ladder = Ladder(attempt, bundle, log, deaf_s=timing.deaf)
        self._monitor = Monitor(attempt, bundle, log, self._tail, self._ladder)
        if attempt.stop is not None:
            self.request_stop(attempt.stop)

    def request_stop(self, order: StopOrder) -> None:
        """Have the attempt ended: its worker is asked, its process group told, and then all of it killed.

        A new order takes the place of an older one, also of one that is being carried out.
        """
        self._asked = order.reason
        self._ladder.order(order)

    def heed(self, attempt: LiveAttempt) -> None:
        """Take what the log says of the attempt now: that it is to end, or to save."""
        if attempt.stop is not None:
            self.request_stop(attempt.stop)
        if attempt.checkpoints > self._checkpoints:
            self._checkpoints = attempt.checkpoints
            self._checkpoint_asked.set()

    def hint(self) -> None:
        """There may be something new in the spool."""
        self._news.set()

    async def run(self) -> Ending:
        """Return when the attempt's end is in the log. May be cancelled at any point and begun anew.

        Raises ``OSError`` while there is no room to start it.
        """
        found = await self._find_or_start()
        if isinstance(found, Revocation):
            ending = Ending(lost=found.reason, refused=found.code, asked=found.asked)
        else:
            await self._log.launched(self._job, self._number, found)
            self.attached.set()
            await self._follow(found)
            ending = await self._conclude(found)
        await self._log.ended(self._job, self._number, ending)
        self.attached.set()
        self._executor.reap()
        return ending

    # ---- start -----------------------------------------------------------------------------------------

    async def _find_or_start(self) -> RunnerIdentity | Revocation:
        """Whoever runs the attempt; or why it is certain that nobody ever will."""
        claim = await to_thread.run_sync(self._look_for_claim)
        if claim is not None:
            return claim
        if self._ladder.is_ordered:
            return await self._give_up("it was stopped before it started", asked=self._asked)
        try:
            # Also when a bundle is there already: a runner may have been started before the daemon died, or
            # not. Of two runners one wins the claim.
            await self._executor.launch(self._bundle, await self._spec())
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            return await self._give_up(f"its runner could not be started: {error}")
        except SpecUnavailableError as error:
            return await self._give_up(str(error), code=error.code)
        pause = self._timing.start_poll
        with anyio.move_on_after(self._timing.start):
            while True:
                claim = await to_thread.run_sync(self._look_for_claim)
                if claim is not None:
                    return claim
                await anyio.sleep(pause)
                pause = min(2 * pause, self._timing.poll)
        return await self._give_up(f"its runner did not start within {self._timing.start:g} s")

    async def _spec(self) -> Spec:
        if await to_thread.run_sync(self._bundle.spec_path.exists):
            return await to_thread.run_sync(self._bundle.read_spec)
        return await self._log.spec(self._job, self._number)

    async def _give_up(
        self, reason: str, *, code: str | None = None, asked: str | None = None
    ) -> RunnerIdentity | Revocation:
        """Revoke the start. Why is in the bundle, for whoever records it if this daemon dies before it has."""
        return await to_thread.run_sync(self._revoke, Revocation(reason=reason, code=code, asked=asked))

    def _revoke(self, revocation: Revocation) -> RunnerIdentity | Revocation:
        self._bundle.path.mkdir(parents=True, exist_ok=True)
        self._bundle.revoke(revocation)
        # If a runner was faster, it has the bundle, and the attempt goes on.
        claim = self._look_for_claim()
        assert claim is not None
        return claim

    def _look_for_claim(self) -> RunnerIdentity | Revocation | None:
        return self._bundle.read_revocation() or self._bundle.read_runner()

    # ---- run -------------------------------------------------------------------------------------------

    async def _follow(self, runner: RunnerIdentity) -> None:
        """Record the spool until the runner is dead and the spool read to its end."""
        with await ProcessWatch.on(runner) as watch:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._notice_death, watch)
                tasks.start_soon(self._ladder.run, watch)
                tasks.start_soon(self._monitor.run, runner, watch)
                tasks.start_soon(self._pass_on_checkpoint_requests)
                await self._ingest(watch)
                tasks.cancel_scope.cancel()

    async def _ingest(self, watch: ProcessWatch) -> None:
        pause = self._timing.poll
        while True:
            dead = (
                watch.has_ended()
            )  # before the spool is read: what a dead runner's worker wrote is all there
            if await self._record_batch(last=dead):
                pause = self._timing.poll
                continue
            if dead:
                return
            news = self._news
            with anyio.move_on_after(pause):
                await news.wait()
            if news.is_set():
                self._news = anyio.Event()
            pause = min(2 * pause, self._timing.poll_idle)

    async def _record_batch(self, *, last: bool) -> bool:
        """Record what is new; whether there was anything. Lines for which the log has no room are kept for later."""
        lines = self._unrecorded = self._unrecorded or await to_thread.run_sync(self._tail.read)
        if not lines:
            return False
        try:
            await self._log.record(self._job, self._number, lines, last=last)
        except NoRoomError as error:
            if not self._waits_for_room:
                logger.warning("job %s: its reports wait in its spool: %s", self._job, error)
            self._waits_for_room = True
            with anyio.move_on_after(self._timing.no_room):
                await self._news.wait()  # it may have died, and then there is a reserve
            self._news = anyio.Event()
        else:
            self._unrecorded, self._waits_for_room = [], False
        return True

    async def _notice_death(self, watch: ProcessWatch) -> None:
        await watch.wait()
        self.hint()

    async def _pass_on_checkpoint_requests(self) -> None:
        while True:
            if self._checkpoints:
                try:
                    await to_thread.run_sync(self._bundle.request_checkpoint, self._checkpoints)
                except OSError as error:
                    logger.warning("job %s: control.json cannot be written: %s", self._job, error)
            await self._checkpoint_asked.wait()
            self._checkpoint_asked = anyio.Event()

    # ---- end -------------------------------------------------------------------------------------------

    async def _conclude(self, runner: RunnerIdentity) -> Ending:
        """What is known of the end of an attempt whose runner is dead."""
        try:
            record = await to_thread.run_sync(self._bundle.read_exit)
            lost = "its runner died before it could say how the work ended"
        except BundleError as error:
            record, lost = None, str(error)
        if record is not None:
            return await self._ending(record)
        if runner.boot_id != identity.boot_id():
            lost = "the machine was restarted while it ran"
        await self._clear_leftovers(runner)
        await to_thread.run_sync(temporary.remove, self._bundle)
        while await self._record_batch(last=True):  # what they wrote until they died
            pass
        usage = await to_thread.run_sync(lived_s, self._bundle, runner)
        return Ending(lost=lost, usage=self._usage(usage))

    async def _ending(self, record: ExitRecord) -> Ending:
        problem = record.problem
        if record.exit_code == 0:
            problem = await to_thread.run_sync(self._find_problem, abandon_on_cancel=True)
        return Ending(
            exit_code=record.exit_code,
            signal=record.signal,
            problem=problem,
            oom_killed=record.oom_killed,
            oom_evidence=record.oom_evidence,
            usage=self._usage(record.usage),
            asked=await to_thread.run_sync(self._stop_asked_for),
        )

    def _stop_asked_for(self) -> str | None:
        """Why the worker was asked to stop, by this daemon or by an earlier one; ``None`` if it was not."""
        try:
            control = self._bundle.read_control()
        except (BundleError, OSError):  # it only explains the end
            return None
        return control.reason if control.state == "stop" else None

    def _usage(self, usage: Mapping[str, float]) -> dict[str, float]:
        return {**usage, **({"skipped_progress": self._tail.skipped} if self._tail.skipped else {})}

    async def _clear_leftovers(self, runner: RunnerIdentity) -> None:
        """Kill what the dead runner left, and return only when none of it is alive."""
        tag, pause = await to_thread.run_sync(self._tag), self._timing.sweep
        while await to_thread.run_sync(identity.kill_leftovers, tag, runner):
            await anyio.sleep(pause)
            pause = min(2 * pause, self._timing.sweep_max)

    def _tag(self) -> str:
        try:
            return self._bundle.read_spec().tag
        except BundleError:
            return f"{self._job}/{self._number}/"

    def _find_problem(self) -> str | None:
        """The first thing that the worker published and that is not as it was published."""
        try:
            for path in self._tail.artifacts:
                manifest.verify(Path(path))
            for path in self._tail.checkpoints:  # read through when one of them is resumed from
                manifest.verify(Path(path), checksums=False)
        except ManifestError as error:
            return error.message
        return None
