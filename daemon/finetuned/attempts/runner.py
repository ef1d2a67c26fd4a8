"""The runner: the small parent of one attempt's worker. ``python -m finetuned.attempts.runner BUNDLE``.

It claims the bundle, starts the worker, keeps its output, and when the worker ends, or SIGTERM asks for its
end, kills whatever is left below it, reaps it all and writes ``exit.json``. It owes the daemon nothing: the
daemon may die, come back and find everything in the bundle. Standard library only, to start in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from finetuned.attempts import identity, limits, temporary
from finetuned.attempts.output import OutputLog, Redactor
from finetuned_sdk import secrets
from finetuned_sdk.bundle import (
    ATTEMPT_VARIABLE,
    RUNNER_VARIABLE,
    Bundle,
    ExitRecord,
    Spec,
    now_us,
    write_json,
)

REVOKED_EXIT_CODE: Final = 3  # the bundle is another runner's, or the daemon gave up on it
SWEEP_INTERVAL: Final = 0.05  # seconds between two rounds of killing, doubled up to:
SWEEP_INTERVAL_MAX: Final = 1.0
WRITE_INTERVAL: Final = 1.0  # seconds between two tries at exit.json on a full disk
READ_SIZE: Final = 1 << 16
_PR_SET_CHILD_SUBREAPER: Final = 36


class StartWorker(Protocol):
    """How a worker is started."""

    def __call__(
        self,
        interpreter: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        output: int,
        memory: int | None,
    ) -> int:
        """Start ``finetuned_sdk.worker`` with its arguments, in the working directory and a process group of its own.

        It writes to ``output`` and is handed ``memory``, a file with secrets. Gives its process id; raises ``OSError``.
        """


def spawn_worker(
    interpreter: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    output: int,
    memory: int | None,
) -> int:
    """``StartWorker`` by executing a program."""
    command = [interpreter, "-P", "-m", "finetuned_sdk.worker", *arguments]
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    if memory is not None:
        actions.append((os.POSIX_SPAWN_DUP2, memory, secrets.DESCRIPTOR))
        command.append(str(secrets.DESCRIPTOR))
    return os.posix_spawn(
        interpreter,
        command,
        environment,
        file_actions=actions,
        setpgroup=0,
        setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ],
    )


def main(arguments: list[str] | None = None, *, start_worker: StartWorker = spawn_worker) -> int:
    """Run one attempt: ``BUNDLE [SECRETS_FD]``, the latter a memory file with the secrets of the job."""
    path, *rest = sys.argv[1:] if arguments is None else arguments
    with contextlib.suppress(PermissionError):  # the launcher has done it already
        os.setsid()
    forbid_core_dumps()
    bundle = Bundle(path)
    wakeup = _catch_signals()
    if not bundle.claim(identity.own()):
        return REVOKED_EXIT_CODE
    with contextlib.suppress(OSError):  # tried without it then
        bundle.reserve_exit()
    runner = Runner(bundle, bundle.read_spec(), _read_secrets(rest), wakeup, start_worker)
    record = runner.run()
    temporary.remove(bundle)  # before the record: it may be what fills the disk
    write_exit(bundle, record)
    return 0


def forbid_core_dumps() -> None:
    """No process of the attempt leaves its memory on disk: its secrets and its data are in it, and many gigabytes.

    One byte, not none: for Linux that also means no dump to a program that ``core_pattern`` names (core(5) has such
    programs get it all, whatever other limit there is).
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def write_exit(bundle: Bundle, record: ExitRecord, *, pause: float = WRITE_INTERVAL) -> None:
    """Put the end on disk, however long the disk stays full: nobody else can tell how the worker ended."""
    while True:
        try:
            bundle.write_exit(record)
        except OSError:
            time.sleep(pause)
        else:
            return


class Runner:
    """One worker from its start to the end of the last process below it."""

    def __init__(
        self,
        bundle: Bundle,
        spec: Spec,
        values: dict[str, str],
        wakeup: int,
        start_worker: StartWorker = spawn_worker,
    ) -> None:
        self._bundle = bundle
        self._spec = spec
        self._start_worker = start_worker
        self._secrets = values
        self._wakeup = wakeup
        self._log = OutputLog(bundle.output_path, limit=spec.output_file_bytes, files=spec.output_files)
        self._redactor = Redactor(secrets.needles(values.values()))
        self._output: int | None = None
        self._worker: int | None = None
        self._status: int | None = None  # as wait(2) gives it
        self._kill_at: float | None = None  # monotonic; set when the end was asked for
        self._sweep_pause = SWEEP_INTERVAL
        self._keeper = limits.Keeper(spec)

    def run(self) -> ExitRecord:
        """Start the worker and see everything through to the end."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        started = time.monotonic()
        try:
            self._start()
        except OSError as error:
            self._keeper.close()
            problem = f"The worker cannot be started with {self._spec.interpreter}: {error.strerror}."
            return ExitRecord(exit_code=None, signal=None, problem=problem, at=now_us())
        while self._reap():
            if _terminate_requested() and self._kill_at is None:
                self._terminate()
            if _dump_requested():
                self._dump()
            if self._status is None and self._keeper.look():
                self._kill_at = time.monotonic()  # what it holds is not given back by asking
            if self._is_over():
                self._sweep()
            self._wait()
        self._finish_output()
        record = self._record(time.monotonic() - started)
        self._keeper.close()
        return record

    def _start(self) -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.chdir(self._bundle.work)
        memory = secrets.to_descriptor(self._secrets) if self._secrets else None
        try:
            # Its own process group, in the runner's session: the group is for SIGTERM, and by the session
            # the daemon finds what a dead runner left.
            environment = self._environment()
            with self._keeper.confined():
                self._worker = self._start_worker(
                    self._spec.interpreter,
                    [str(self._bundle.path)],
                    environment,
                    output=write_end,
                    memory=memory,
                )
        finally:
            os.close(write_end)
            if memory is not None:
                os.close(memory)
        self._output = read_end
        self._lower_rank(self._worker)
        if self._keeper.told():
            with contextlib.suppress(OSError):  # a full disk: the limits are kept all the same
                write_json(self._bundle.limits_path, self._keeper.told())

    def _environment(self) -> dict[str, str]:
        directory = temporary.create(self._bundle, os.environ)
        temporary.hold(directory)  # until the runner ends; its worker does not inherit it
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self._spec.environment}
        return {
            **environment,
            **self._keeper.environment(environment),
            "TMPDIR": str(directory),
            ATTEMPT_VARIABLE: self._spec.tag,
            RUNNER_VARIABLE: str(os.getpid()),
        }

    def _lower_rank(self, pid: int) -> None:
        """The worker yields to the daemon: in time (nice) and when memory runs out."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, self._spec.nice)
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(self._spec.oom_score_adj), encoding="ascii")

    def _wait(self) -> None:
        readers = [self._wakeup] if self._output is None else [self._wakeup, self._output]
        ready, _, _ = select.select(readers, [], [], self._timeout())
        if self._wakeup in ready:
            os.read(self._wakeup, READ_SIZE)
        if self._output in ready:
            self._read_output()

    def _timeout(self) -> float | None:
        if self._is_over():
            self._sweep_pause = min(2 * self._sweep_pause, SWEEP_INTERVAL_MAX)
            return self._sweep_pause
        until_kill = float("inf") if self._kill_at is None else self._kill_at - time.monotonic()
        return max(0.0, min(until_kill, self._keeper.pause_s))

    def _is_over(self) -> bool:
        """Whether nothing below the runner has any right to live."""
        return self._status is not None or (self._kill_at is not None and time.monotonic() >= self._kill_at)

    def _terminate(self) -> None:
        self._kill_at = time.monotonic() + self._spec.grace_s
        if self._worker is not None and self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._worker, signal.SIGTERM)
                os.killpg(self._worker, signal.SIGCONT)  # what stands still hears nothing

    def _dump(self) -> None:
        """Have the worker print its stacks, if it can by now: the signal ends one that has no handler for it yet."""
        worker = self._worker if self._status is None else None
        if worker is not None and identity.catches(worker, signal.SIGUSR1):
            identity.kill(worker, signal.SIGUSR1)

    def _sweep(self) -> None:
        self._keeper.kill()
        for pid in identity.descendants(os.getpid()):
            identity.kill(pid)

    def _reap(self) -> bool:
        """Collect whoever ended; whether anybody is left. Orphans come here: the runner is a subreaper."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._worker:
                    self._status = status
        except ChildProcessError:
            return False

    def _read_output(self) -> bool:
        """Take what the pipe holds now; whether there may be more."""
        assert self._output is not None
        try:
            data = os.read(self._output, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            os.close(self._output)
            self._output = None
            return False
        self._log.write(self._redactor.feed(data))
        return True

    def _finish_output(self) -> None:
        while self._output is not None and self._read_output():
            pass
        self._log.write(self._redactor.finish())
        self._log.close()

    def _record(self, wall_s: float) -> ExitRecord:
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        oom_evidence = self._keeper.evidence(killed=code == -signal.SIGKILL and self._kill_at is None)
        return ExitRecord(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            oom_killed=oom_evidence is not None,
            oom_evidence=oom_evidence,
            usage={
                "user_s": round(usage.ru_utime, 3),
                "system_s": round(usage.ru_stime, 3),
                "wall_s": round(wall_s, 3),
                "max_rss_bytes": usage.ru_maxrss * 1024,
                **({"group_rss_bytes": self._keeper.peak} if self._keeper.peak else {}),
            },
            at=now_us(),
        )


_terminations: list[int] = []  # what the signal handler saw
_dumps: list[int] = []


def _terminate_requested() -> bool:
    return bool(_terminations)


def _dump_requested() -> bool:
    """Whether stacks were asked for since this was asked last."""
    asked = bool(_dumps)
    _dumps.clear()
    return asked


def _catch_signals() -> int:
    """Have SIGTERM, SIGUSR1 and SIGCHLD wake the main loop: the descriptor to read."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: _terminations.append(number))
    signal.signal(signal.SIGUSR1, lambda number, _: _dumps.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return read_end


def _read_secrets(arguments: list[str]) -> dict[str, str]:
    if not arguments:
        return {}
    return secrets.from_descriptor(int(arguments[0]))


if __name__ == "__main__":
    sys.exit(main())
