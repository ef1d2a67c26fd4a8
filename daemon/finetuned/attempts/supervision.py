"""All live attempts, one supervisor each: what the log says is live is what is supervised."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio import TASK_STATUS_IGNORED, to_thread
from anyio.abc import TaskGroup, TaskStatus

from finetuned.attempts import identity
from finetuned.attempts.launcher import Executor
from finetuned.attempts.ports import AttemptLog, LiveAttempt
from finetuned.attempts.supervisor import DEFAULT_TIMING, Supervisor, Timing
from finetuned_sdk.bundle import Bundle, BundleError

logger = logging.getLogger(__name__)

ATTACH_BUDGET: Final = 5.0  # seconds that the start waits for an attempt to be looked at
RECONCILE_INTERVAL: Final = 30.0  # seconds between two looks at the log without being told
RETRY_PAUSE: Final = 1.0  # seconds before a supervisor that broke is begun anew, doubled up to:
RETRY_PAUSE_MAX: Final = 60.0

_Key = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A bundle that runs although the log does not know it, as after an older backup was restored.

    Nothing of it is deleted or killed; its processes keep their ``devices``.
    """

    job: str
    attempt: int
    pid: int
    devices: tuple[str, ...]


class Supervision:
    """Keeps a supervisor for each live attempt. Notifications are hints; the log is asked."""

    def __init__(
        self, jobs: Path, log: AttemptLog, executor: Executor, *, timing: Timing = DEFAULT_TIMING
    ) -> None:
        self.strays: list[Stray] = []
        self._jobs = jobs
        self._log = log
        self._executor = executor
        self._timing = timing
        self._supervisors: dict[_Key, Supervisor] = {}
        self._changed = anyio.Event()  # the log may say something new
        self._ended = anyio.Event()  # a supervisor has ended
        self._stopping: str | None = None

    @property
    def supervised(self) -> frozenset[_Key]:
        """The attempts that have a supervisor: job and number."""
        return frozenset(self._supervisors)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Supervise until cancelled. Started once every attempt of an earlier daemon was looked at.

        Cancelling spares the attempts: they run on, and the next supervision finds them.
        """
        async with anyio.create_task_group() as tasks:
            live = await self._log.live()
            self._reconcile(live, tasks)
            await self._report_strays(live)  # before anything is scheduled: their devices are not free
            await self._await_attached()
            task_status.started()
            while True:
                with anyio.move_on_after(RECONCILE_INTERVAL):
                    await self._changed.wait()
                self._changed = anyio.Event()
                self._reconcile(await self._log.live(), tasks)

    def notice(self) -> None:
        """The log may say something new: an attempt that starts, or one that is to end."""
        self._changed.set()

    @property
    def reserved(self) -> frozenset[str]:
        """The devices of strays: nobody else may have them."""
        return frozenset(device for stray in self.strays for device in stray.devices)

    async def kill_all(self, reason: str = "the daemon takes its work along") -> None:
        """End every attempt and return when nothing of them is alive. None is started any more."""
        self._stopping = reason
        for supervisor in self._supervisors.values():
            supervisor.request_stop(reason)
        while self._supervisors:
            await self._ended.wait()
            self._ended = anyio.Event()

    def bundle(self, job: str, number: int) -> Bundle:
        """Where an attempt's files are."""
        return Bundle(self._jobs / job / "attempts" / str(number))

    def _reconcile(self, live: list[LiveAttempt], tasks: TaskGroup) -> None:
        for attempt in live:
            supervisor = self._supervisors.get((attempt.job, attempt.number))
            if supervisor is None and self._stopping is None:
                self._supervisors[attempt.job, attempt.number] = self._supervisor(attempt)
                tasks.start_soon(self._supervise, attempt.job, attempt.number)
            elif supervisor is not None and attempt.stop is not None:
                supervisor.request_stop(attempt.stop)

    def _supervisor(self, attempt: LiveAttempt) -> Supervisor:
        bundle = self.bundle(attempt.job, attempt.number)
        supervisor = Supervisor(attempt, bundle, self._log, self._executor, timing=self._timing)
        if self._stopping is not None:
            supervisor.request_stop(self._stopping)
        return supervisor

    async def _supervise(self, job: str, number: int) -> None:
        pause = RETRY_PAUSE
        try:
            while not await self._run_once(job, number):
                await anyio.sleep(pause)
                pause = min(2 * pause, RETRY_PAUSE_MAX)
                attempt = await self._still_live(job, number)
                if attempt is None:
                    return
                self._supervisors[job, number] = self._supervisor(attempt)
        finally:
            del self._supervisors[job, number]
            self._ended.set()

    async def _run_once(self, job: str, number: int) -> bool:
        try:
            await self._supervisors[job, number].run()
        except Exception:
            # Not the attempt's end: only proof of that ends it. It is looked at again.
            logger.exception("supervising attempt %d of job %s broke off; it is begun anew", number, job)
            return False
        return True

    async def _still_live(self, job: str, number: int) -> LiveAttempt | None:
        return next((a for a in await self._log.live() if (a.job, a.number) == (job, number)), None)

    async def _await_attached(self) -> None:
        async with anyio.create_task_group() as waiting:
            for (job, number), supervisor in self._supervisors.items():
                waiting.start_soon(self._await_one, job, number, supervisor)

    async def _await_one(self, job: str, number: int, supervisor: Supervisor) -> None:
        with anyio.move_on_after(ATTACH_BUDGET) as scope:
            await supervisor.attached.wait()
        if scope.cancelled_caught:
            logger.warning("attempt %d of job %s was not found within %g s", number, job, ATTACH_BUDGET)

    async def _report_strays(self, live: list[LiveAttempt]) -> None:
        known = frozenset((attempt.job, attempt.number) for attempt in live)
        self.strays = await to_thread.run_sync(find_strays, self._jobs, known)
        for stray in self.strays:
            logger.error(
                "attempt %d of job %s runs (pid %d) but the log does not know it; it is left alone",
                stray.attempt,
                stray.job,
                stray.pid,
            )


def find_strays(jobs: Path, known: frozenset[_Key]) -> list[Stray]:
    """The bundles below ``jobs`` that run although they are not ``known``."""
    found = []
    for path in sorted(jobs.glob("*/attempts/*")):
        if path.name.isdigit() and (path.parent.parent.name, int(path.name)) not in known:
            stray = _stray(Bundle(path))
            if stray is not None:
                found.append(stray)
    return found


def _stray(bundle: Bundle) -> Stray | None:
    if bundle.exit_path.exists():
        return None
    try:
        runner = bundle.read_runner()
        if runner is None or not identity.is_alive(runner):
            return None
        spec = bundle.read_spec()
    except BundleError as error:
        logger.warning("%s", error)
        return None
    return Stray(job=spec.job, attempt=spec.attempt, pid=runner.pid, devices=spec.devices)
