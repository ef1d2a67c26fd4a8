"""The local executor: makes an attempt's bundle and starts its runner on this machine."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import anyio.to_thread

from finetuned.attempts.warm import WarmStarts
from finetuned_sdk import secrets
from finetuned_sdk.bundle import Bundle, Spec

#: What belongs to the daemon and must not reach a worker.
DROPPED_VARIABLES: Final = frozenset({
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "NOTIFY_SOCKET",
    "OTEL_EXPORTER_OTLP_HEADERS",  # credentials of the daemon's traces
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
})  # fmt: skip
#: has setproctitle (vLLM's and Ray's processes use it) leave the environment alone: by its mark there we know ours
KEPT_READABLE: Final = {"SPT_NOENV": "1"}
DROPPED_PREFIX: Final = "FINETUNED_"
#: a variable of such a name holds a secret of the daemon's surroundings; jobs name theirs
_SECRET_VARIABLE: Final = re.compile(
    r"(?:.*_)?(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|API_?KEY|(?:ACCESS|PRIVATE|SECRET)_KEY(?:_ID)?|CREDENTIALS?)"
)

#: from the names that a job gave its secrets, and what they refer to, to their values
ReadSecrets = Callable[[Mapping[str, str]], Mapping[str, str]]


def no_secrets(references: Mapping[str, str]) -> Mapping[str, str]:
    """No store: every reference is to nothing. Raises ``LookupError``."""
    if references:
        raise LookupError(f"there is no {next(iter(references.values()))}")
    return {}


class Executor(Protocol):
    """Where runners are started."""

    async def launch(self, bundle: Bundle, spec: Spec) -> None:
        """Make the bundle if it is not there and start a runner for it.

        Called again for the same bundle it starts a second runner, and one of the two claims it.
        """

    def reap(self) -> None:
        """Collect runners that have ended."""


class LocalExecutor:
    """Starts runners as children in sessions of their own. They outlive this process.

    ``read_secrets`` finds the values of the secrets that an attempt's ``Spec`` refers to. They reach the runner
    by a memory file, never by argv, environment or disk, and are masked in the output. With ``warm`` runners are forked
    from a process that has their trainer's imports, where that is possible.
    """

    def __init__(self, read_secrets: ReadSecrets = no_secrets, warm: WarmStarts | None = None) -> None:
        self._read_secrets = read_secrets
        self._warm = warm
        self._children: set[int] = set()

    @property
    def running(self) -> frozenset[int]:
        """The runners that were started here and not reaped yet."""
        return frozenset(self._children) | (self._warm.running if self._warm is not None else frozenset())

    async def launch(self, bundle: Bundle, spec: Spec) -> None:
        """Make the bundle if it is not there and start a runner.

        Raises ``OSError`` if that is impossible, and what ``read_secrets`` raises.
        """
        memory = await anyio.to_thread.run_sync(self._prepare, bundle, spec)
        try:
            environment = runner_environment(os.environ)
            if self._warm is None or not await self._warm.launch(bundle.path, spec, environment, memory):
                await anyio.to_thread.run_sync(self._spawn, bundle, spec, environment, memory)
        finally:
            if memory is not None:
                os.close(memory)

    def reap(self) -> None:
        """Collect runners that have ended, so that no zombie holds their process ids."""
        for pid in tuple(self._children):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self._children.discard(pid)
        if self._warm is not None:
            self._warm.reap()

    def close(self) -> None:
        """End what was kept for later starts. Runners live on."""
        if self._warm is not None:
            self._warm.close()

    def _prepare(self, bundle: Bundle, spec: Spec) -> int | None:
        """Make the bundle if it is not there; a descriptor of the secrets, if it has such."""
        values = self._read_secrets(spec.secrets) if spec.secrets else {}
        if not bundle.spec_path.exists():
            bundle.create(spec)
        return secrets.to_descriptor(values) if values else None

    def _spawn(self, bundle: Bundle, spec: Spec, environment: Mapping[str, str], memory: int | None) -> None:
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        command = [spec.interpreter, "-P", "-m", "finetuned.attempts.runner", str(bundle.path)]
        if memory is not None:
            actions.append((os.POSIX_SPAWN_DUP2, memory, secrets.DESCRIPTOR))
            command.append(str(secrets.DESCRIPTOR))
        # Not fork: this process has threads. Its other descriptors are close-on-exec (PEP 446).
        pid = os.posix_spawn(
            spec.interpreter,
            command,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
        self._children.add(pid)


def runner_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment without what is its own: its settings, credentials and systemd sockets."""
    withheld = set(withheld_secrets(environment))
    handed_on = {
        name: value
        for name, value in environment.items()
        if name not in DROPPED_VARIABLES and not name.startswith(DROPPED_PREFIX) and name not in withheld
    }
    return handed_on | KEPT_READABLE


def withheld_secrets(environment: Mapping[str, str]) -> list[str]:
    """The names of variables that hold secrets by their names and are not handed on to jobs."""
    names = [name for name in environment if _SECRET_VARIABLE.fullmatch(name.upper())]
    return [name for name in names if not name.startswith(DROPPED_PREFIX)]
