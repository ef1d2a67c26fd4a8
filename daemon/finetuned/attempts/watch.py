"""Waiting for the death of a process that may not be our child."""

from __future__ import annotations

import contextlib
import os
import signal
from types import TracebackType
from typing import Self

import anyio
from anyio import to_thread

from finetuned.attempts import identity
from finetuned_sdk.bundle import RunnerIdentity


class ProcessWatch:
    """Holds a pidfd of exactly one process; a process that is gone already counts as dead."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @classmethod
    async def on(cls, runner: RunnerIdentity) -> Self:
        """Watch the process of an identity."""
        return cls(await to_thread.run_sync(identity.open_process, runner))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._descriptor is None or identity.has_ended(self._descriptor)

    async def wait(self) -> None:
        """Return once the process has ended."""
        if self._descriptor is not None:
            await anyio.wait_readable(self._descriptor)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if self._descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)
