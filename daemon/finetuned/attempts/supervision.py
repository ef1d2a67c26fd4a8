"""All live attempts, one supervisor each: what the log says is live is what is supervised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio
from anyio import TASK_STATUS_IGNORED, to_thread
from anyio.abc import TaskGroup, TaskStatus

from finetuned.attempts import temporary
from finetuned.attempts.launcher import Executor
from finetuned.attempts.ports import AttemptLog, LiveAttempt, StopOrder
from finetuned.attempts.strays import Key, Stray, bundles, find_strays, set_aside
from finetuned.attempts.supervisor import DEFAULT_TIMING, NO_ROOM, Supervisor, Timing
from finetuned_sdk.bundle import Bundle

logger = logging.getLogger(__name__)

ATTACH_BUDGET: Final = 5.0  # seconds that the start waits for an attempt to be looked at
RECONCILE_INTERVAL: Final = 30.0  # seconds between two looks at the log without being told
RETRY_PAUSE: Final = 1.0  # seconds before a supervisor that broke is begun anew, doubled up to:
RETRY_PAUSE_MAX: Final = 60.0
ROOM_PAUSE_MAX: Final = 5.0  # while it only waits for room on the disk


class Supervision:
    """Keeps a supervisor for each live attempt. Notifications are hints; the log is asked.

    ``released`` is called when strays are gone and their devices free. Errors named in ``fatal`` end the
    supervision; after any other it looks again.
    """

    def __init__(
        self,
        jobs: Path,
        log: AttemptLog,
        executor: Executor,
        *,
        timing: Timing = DEFAULT_TIMING,
        released: Callable[[], None] = lambda: None,
        fatal: tuple[type[BaseException], ...] = (),
    ) -> None:
        self.strays: list[Stray] = []
        self._jobs = jobs
        self._log = log
        self._executor = executor
        self._timing = timing
        self._released = released
        self._fatal = fatal
        self._supervisors: dict[Key, Supervisor] = {}
        self._foreign: dict[Key, Bundle] = {}  # to be moved aside before their numbers are given out again
        self._changed = anyio.Event()  # the log may say something new
        self._ended = anyio.Event()  # a supervisor has ended
        self._stop_asked = anyio.Event()
        self._stopping: str | None = None

    @property
    def supervised(self) -> frozenset[Key]:
        """The attempts that have a supervisor: job and number."""
        return frozenset(self._supervisors)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Supervise until cancelled. Started once every attempt of an earlier daemon was looked at.

        Cancelling spares the attempts: they run on, and the next supervision finds them. Raises what the
        log raises at the start, and later only what is ``fatal`` (in a group).
        """
        async with anyio.create_task_group() as tasks:
            live = await self._log.live()
            self._reconcile(live, tasks)
            await self._look_for_strays(live)  # before anything is scheduled: their devices are not free
            await self._await_attached()
            task_status.started()
            while True:
                with anyio.move_on_after(RECONCILE_INTERVAL):
                    await self._changed.wait()
                self._changed = anyio.Event()
                await self._look_again(tasks)

    def notice(self) -> None:
        """The log may say something new: an attempt that starts, or one that is to end."""
        self._changed.set()

    @property
    def reserved(self) -> frozenset[str]:
        """The devices of strays: nobody else may have them."""
        return frozenset(device for stray in self.strays for device in stray.devices)

    async def kill_all(
        self, reason: str = "the daemon takes its work along", *, deadline: float = 60.0
    ) -> None:
        """End every attempt and return when nothing of them is alive. None is started any more.

        After ``deadline`` seconds it returns all the same: on a full disk no end can be recorded. The
        processes were told to end by then.
        """
        self._stopping = reason
        self._stop_asked.set()
        for supervisor in self._supervisors.values():
            supervisor.request_stop(StopOrder(reason=reason))
        with anyio.move_on_after(deadline):
            while self._supervisors:
                await self._ended.wait()
                self._ended = anyio.Event()
        if self._supervisors:
            logger.error("%d attempts have not ended within %g s", len(self._supervisors), deadline)

    def bundle(self, job: str, number: int) -> Bundle:
        """Where an attempt's files are."""
        return Bundle(self._jobs / job / "attempts" / str(number))

    async def _look_again(self, tasks: TaskGroup) -> None:
        try:
            await self._drop_gone_strays()
            await self._set_aside_foreign()
            self._reconcile(await self._log.live(), tasks)
        except Exception as error:
            if _holds(error, self._fatal):
                raise
            logger.warning("the attempts cannot be looked at, another try follows: %r", error)
            await anyio.sleep(RETRY_PAUSE)
            self.notice()

    def _reconcile(self, live: Sequence[LiveAttempt], tasks: TaskGroup) -> None:
        for attempt in live:
            supervisor = self._supervisors.get((attempt.job, attempt.number))
            if (attempt.job, attempt.number) in self._foreign:
                continue  # its number's bundle is another's
            if supervisor is None and self._stopping is None:
                self._supervisors[attempt.job, attempt.number] = self._supervisor(attempt)
                tasks.start_soon(self._supervise, attempt.job, attempt.number)
            elif supervisor is not None:
                supervisor.heed(attempt)

    def _supervisor(self, attempt: LiveAttempt) -> Supervisor:
        bundle = self.bundle(attempt.job, attempt.number)
        supervisor = Supervisor(attempt, bundle, self._log, self._executor, timing=self._timing)
        if self._stopping is not None:
            supervisor.request_stop(StopOrder(reason=self._stopping))
        return supervisor

    async def _supervise(self, job: str, number: int) -> None:
        pause, anew = RETRY_PAUSE, False
        try:
            while longest := await self._run_once(job, number, anew=anew):
                anew = True
                await self._rest(min(pause, longest))
                pause = min(2 * pause, longest)
        finally:
            del self._supervisors[job, number]
            self._ended.set()

    async def _run_once(self, job: str, number: int, *, anew: bool) -> float:
        """0 if the attempt has ended, else how many seconds may pass before it is looked at again.

        An error is not its end, only proof is.
        """
        try:
            if anew and not await self._renew(job, number):
                return 0.0
            await self._supervisors[job, number].run()
        except Exception as error:
            if _holds(error, self._fatal):
                raise
            if _lacks_room(error):
                logger.warning("attempt %d of job %s waits for room on the disk: %s", number, job, error)
                return ROOM_PAUSE_MAX
            logger.exception("supervising attempt %d of job %s broke off; it is begun anew", number, job)
            return RETRY_PAUSE_MAX
        return 0.0

    async def _rest(self, pause: float) -> None:
        """Wait before the next try; not long once everything is to end."""
        if self._stop_asked.is_set():
            await anyio.sleep(RETRY_PAUSE)
        with anyio.move_on_after(pause):
            await self._stop_asked.wait()

    async def _renew(self, job: str, number: int) -> bool:
        """Make a new supervisor unless the log says that the attempt has ended; whether there is one."""
        for attempt in await self._log.live():
            if (attempt.job, attempt.number) == (job, number):
                self._supervisors[job, number] = self._supervisor(attempt)
                return True
        return False

    async def _await_attached(self) -> None:
        async with anyio.create_task_group() as waiting:
            for (job, number), supervisor in self._supervisors.items():
                waiting.start_soon(self._await_one, job, number, supervisor)

    async def _await_one(self, job: str, number: int, supervisor: Supervisor) -> None:
        with anyio.move_on_after(ATTACH_BUDGET) as scope:
            await supervisor.attached.wait()
        if scope.cancelled_caught:
            logger.warning("attempt %d of job %s was not found within %g s", number, job, ATTACH_BUDGET)

    # ---- bundles that the log does not know ------------------------------------------------------------

    async def _look_for_strays(self, live: Sequence[LiveAttempt]) -> None:
        keys = frozenset((attempt.job, attempt.number) for attempt in live)
        self.strays = await to_thread.run_sync(find_strays, self._jobs, keys)
        for stray in self.strays:
            logger.error(
                "attempt %d of job %s runs (pid %d) but the log does not know it; it is left alone",
                stray.attempt,
                stray.job,
                stray.pid,
            )
        known = await self._log.known()
        found = await to_thread.run_sync(lambda: list(bundles(self._jobs)))
        # Jobs that get no other attempt cannot confuse one: their bundles stay.
        self._foreign = {key: bundle for key, bundle in found if key[1] > known.get(key[0], key[1])}
        await self._set_aside_foreign()

    async def _drop_gone_strays(self) -> None:
        gone = [stray for stray in self.strays if await to_thread.run_sync(stray.is_gone)]
        if gone:
            self.strays = [stray for stray in self.strays if stray not in gone]
            logger.warning("%d attempts that the log does not know have ended", len(gone))
            for stray in gone:  # as of any attempt whose runner may have been killed
                await to_thread.run_sync(temporary.remove, self.bundle(*stray.key))
            self._released()

    async def _set_aside_foreign(self) -> None:
        running = {stray.key for stray in self.strays}
        for key in [key for key in self._foreign if key not in running]:
            try:
                target = await to_thread.run_sync(set_aside, self._foreign[key])
            except OSError as error:  # its number is not used until this succeeds
                logger.warning("%s cannot be moved aside: %s", self._foreign[key].path, error)
            else:
                del self._foreign[key]
                logger.error(
                    "attempt %d of job %s is not in the log, as after an older backup was restored;"
                    " its files are kept in %s",
                    key[1],
                    key[0],
                    target,
                )


def _lacks_room(error: BaseException) -> bool:
    """Whether the error is, or a group has nothing but, that a disk is full."""
    if isinstance(error, BaseExceptionGroup):
        return all(_lacks_room(each) for each in error.exceptions)
    return isinstance(error, OSError) and error.errno in NO_ROOM


def _holds(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether the error is, or a group of errors has, one of the kinds."""
    if isinstance(error, BaseExceptionGroup):
        return any(_holds(each, kinds) for each in error.exceptions)
    return isinstance(error, kinds)
