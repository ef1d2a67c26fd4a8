"""The daemon's end of a zygote: started, asked for runners, and ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from finetuned.attempts import warm_channel
from finetuned.attempts.warm_image import PADDING
from finetuned_sdk.bundle import ATTEMPT_VARIABLE, RUNNER_VARIABLE, Spec

IMPORT_S: Final = 60.0  # imports that take longer stand still
REPLY_S: Final = 10.0  # for a fork, or modules that another kind of job needs besides
#: What a fork is given of its own, so that it makes no difference to what is imported.
GIVEN_LATER: Final = frozenset({
    ATTEMPT_VARIABLE,
    RUNNER_VARIABLE,
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "PYTHONUNBUFFERED",
    "TMPDIR",
})  # fmt: skip
#: How OpenMP waits is fixed when it is loaded. In passing: a thread that spins on a core that others use is slow.
OPENMP: Final = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


class ZygoteError(Exception):
    """There is no zygote to be had, and why."""


class StaleError(ZygoteError):
    """There is none any more, and another may be had: it has ended, or what it has imported was changed on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmSettings:
    """``idle_s``: seconds without a launch after which a zygote ends. ``memory``: bytes that it may hold.

    ``environment`` is what it has besides the daemon's: where jobs are never given a GPU, no GPU either.
    """

    idle_s: float = 600.0
    memory: int = 2 << 30
    environment: Mapping[str, str] = field(default_factory=dict)


def import_environment(environment: Mapping[str, str], spec: Spec) -> dict[str, str] | None:
    """What the modules of an attempt's worker would see when they are imported; ``None`` if no zygote sees the same."""
    whole = {**environment, **spec.environment}
    if any(whole.get(name, value) != value for name, value in OPENMP.items()):
        return None
    return {name: value for name, value in whole.items() if name not in GIVEN_LATER and name not in OPENMP}


class ZygoteProcess:
    """A process with an interpreter and an environment, that imports ``modules`` as soon as it is started.

    Raises ``OSError`` if it cannot be started. All its methods but :meth:`is_ready` block.
    """

    def __init__(
        self, interpreter: str, environment: Mapping[str, str], modules: Sequence[str], settings: WarmSettings
    ) -> None:
        self.interpreter = interpreter
        self.environment = dict(environment)
        self.ready = False
        self._started = time.monotonic()
        self._daemon, end = warm_channel.pair()
        try:
            with end:
                self.pid = _spawn(interpreter, self.environment, end, settings)
        except OSError:
            self._daemon.close()
            raise
        self._daemon.settimeout(REPLY_S)
        self._send({"modules": list(modules)})

    def fits(self, interpreter: str, environment: Mapping[str, str]) -> bool:
        """Whether a worker of this interpreter would have imported the same."""
        return self.interpreter == interpreter and self.environment == environment

    async def wait(self, longest_s: float) -> None:
        """Wait until it may have said something, so many seconds since its start at most."""
        with anyio.move_on_after(self._started + longest_s - time.monotonic()):
            await anyio.wait_readable(self._daemon)

    def look(self) -> bool:
        """Whether its imports are done. Raises ``ZygoteError`` if they have failed, or take too long."""
        if not self.ready and select.select([self._daemon], [], [], 0)[0]:
            self._receive()
            self.ready = True
        if not self.ready and time.monotonic() > self._started + IMPORT_S:
            raise ZygoteError(f"its imports take longer than {IMPORT_S:g} s")
        return self.ready

    def launch(
        self, bundle: str, environment: Mapping[str, str], memory: int | None, modules: Sequence[str]
    ) -> tuple[int, int]:
        """Have it fork a runner: its process id, and a descriptor of the process that is the caller's to close.

        Raises ``ZygoteError``; then it may have started one all the same.
        """
        launch = {
            "bundle": bundle,
            "interpreter": self.interpreter,
            "environment": dict(environment),
            "oom_score_adj": _own_oom_score(),
        }
        self._send({"modules": list(modules), "launch": launch}, () if memory is None else (memory,))
        answer, descriptors = self._receive()
        return int(answer["pid"]), descriptors[0]

    def has_ended(self) -> bool:
        """Whether it is gone; then it is collected."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def end(self) -> None:
        """Kill it. The runners that it has forked live on."""
        self._daemon.close()
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)  # a child that was not collected: the pid is its own
            os.waitpid(self.pid, 0)

    def _send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        try:
            warm_channel.send(self._daemon, message, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            raise StaleError("it has ended") from None
        except OSError as error:
            raise ZygoteError(f"it cannot be asked: {error.strerror or error}") from None

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        try:
            answer, descriptors = warm_channel.receive(self._daemon)
        except OSError as error:
            raise ZygoteError(f"it does not answer: {error.strerror or error}") from None
        if answer is None:
            raise StaleError("it has ended")
        if "stale" in answer:
            raise StaleError(f"{answer['stale']} has changed since it was imported")
        if "problem" in answer:
            raise ZygoteError(str(answer["problem"]))
        return answer, descriptors


def _spawn(
    interpreter: str, environment: Mapping[str, str], end: socket.socket, settings: WarmSettings
) -> int:
    command = [interpreter, "-P", "-m", "finetuned.attempts.zygote"]
    limits = ["3", str(settings.idle_s), str(settings.memory)]
    return os.posix_spawn(
        interpreter,
        [*command, *limits, PADDING],  # room for the command lines of its forks
        {
            **environment,
            **settings.environment,
            **OPENMP,
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",  # as workers have it
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # or a look whether there is a GPU would initialise CUDA
            ATTEMPT_VARIABLE: PADDING,
        },
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, end.fileno(), 3),
        ],
        setsid=True,  # what is typed at a daemon's terminal is not for it
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
    )


def _own_oom_score() -> int:
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:  # noqa: PTH123 - some bytes of the kernel's
        return int(file.read())
