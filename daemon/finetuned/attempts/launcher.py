"""The local executor: makes an attempt's bundle and starts its runner on this machine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any, Final, Protocol

import anyio.to_thread

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
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
})  # fmt: skip
DROPPED_PREFIX: Final = "FINETUNED_"
_SECRETS_DESCRIPTOR: Final = 3  # where the runner finds its memory file


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

    ``secrets`` are environment variables for workers (names and values); they reach the runner by a memory
    file, never by argv, environment or disk, and are masked in the output.
    """

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._secrets = dict(secrets or {})
        self._children: set[int] = set()

    @property
    def running(self) -> frozenset[int]:
        """The runners that were started here and not reaped yet."""
        return frozenset(self._children)

    async def launch(self, bundle: Bundle, spec: Spec) -> None:
        """Make the bundle if it is not there and start a runner. Raises ``OSError`` if that is impossible."""
        await anyio.to_thread.run_sync(self._launch, bundle, spec)

    def reap(self) -> None:
        """Collect runners that have ended, so that no zombie holds their process ids."""
        for pid in tuple(self._children):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self._children.discard(pid)

    def _launch(self, bundle: Bundle, spec: Spec) -> None:
        if not bundle.spec_path.exists():
            bundle.create(spec)
        secrets = self._secrets_file()
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        command = [spec.interpreter, "-P", "-m", "finetuned.attempts.runner", str(bundle.path)]
        if secrets is not None:
            actions.append((os.POSIX_SPAWN_DUP2, secrets, _SECRETS_DESCRIPTOR))
            command.append(str(_SECRETS_DESCRIPTOR))
        try:
            # Not fork: this process has threads. Its other descriptors are close-on-exec (PEP 446).
            pid = os.posix_spawn(
                spec.interpreter,
                command,
                runner_environment(os.environ),
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        finally:
            if secrets is not None:
                os.close(secrets)
        self._children.add(pid)

    def _secrets_file(self) -> int | None:
        if not self._secrets:
            return None
        descriptor = os.memfd_create("finetuned-secrets")
        os.write(descriptor, json.dumps(self._secrets).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor


def runner_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment without what is its own: its settings, credentials and systemd sockets."""
    return {
        name: value
        for name, value in environment.items()
        if name not in DROPPED_VARIABLES and not name.startswith(DROPPED_PREFIX)
    }
