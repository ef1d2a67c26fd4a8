"""Warm starts: a runner forked from a process that has a trainer's imports, in place of minutes or seconds of imports.

There is one such process at most, the zygote. It is started with the first attempt that can use it, and ends when it
is idle. Whatever goes wrong with it, the attempt is started as a program.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from finetuned.attempts import identity
from finetuned.attempts.warm_image import ROOM
from finetuned.attempts.warm_process import (
    IMPORT_S,
    StaleError,
    WarmSettings,
    ZygoteError,
    ZygoteProcess,
    import_environment,
)
from finetuned_sdk.bundle import Spec

REST_S: Final = 600.0  # after trouble, before another zygote is tried

logger = logging.getLogger(__name__)


class WarmStarts:
    """Starts runners by fork, where that is possible."""

    def __init__(self, settings: WarmSettings | None = None) -> None:
        self._settings = settings or WarmSettings()
        self._zygote: ZygoteProcess | None = None
        self._dialogue = anyio.Lock()
        self._rests_until = float("-inf")
        self._runners: dict[int, int] = {}  # process ids to descriptors

    @property
    def running(self) -> frozenset[int]:
        """The runners that were forked for this daemon and have not ended."""
        return frozenset(self._runners)

    @property
    def zygote(self) -> int | None:
        """The process id of the zygote, if there is one."""
        return None if self._zygote is None else self._zygote.pid

    async def launch(
        self, bundle: Path, spec: Spec, environment: Mapping[str, str], memory: int | None
    ) -> bool:
        """Start a runner; ``False`` if it is to be started as a program.

        ``environment`` is the runner's, ``memory`` the descriptor of its secrets. A run waits for imports that have
        begun: they would take it as long. A validation does not, they are for the run that follows it.
        """
        imported_with = import_environment(environment, spec) if spec.preload else None
        if imported_with is None or len(spec.tag) > ROOM or time.monotonic() < self._rests_until:
            return False
        is_patient = spec.purpose == "run"
        if not is_patient and self._dialogue.locked() and not (self._zygote and self._zygote.ready):
            return False
        async with self._dialogue:
            try:
                for _ in range(2):  # the second time with another zygote
                    zygote = await self._fitting(spec, imported_with)
                    try:
                        if is_patient and not zygote.ready:
                            await zygote.wait(IMPORT_S)
                        if not await to_thread.run_sync(zygote.look):
                            return False
                        started = await to_thread.run_sync(
                            zygote.launch, str(bundle), environment, memory, spec.preload
                        )
                    except StaleError as error:
                        logger.info("the process for warm starts is not used any more: %s", error)
                        await self._drop()
                        continue
                    self._runners[started[0]] = started[1]
                    return True
                raise ZygoteError("it does not last")  # noqa: TRY301 - as any trouble with it
            except (ZygoteError, OSError) as error:
                logger.warning("attempts are started without the process for warm starts: %s", error)
                self._rests_until = time.monotonic() + REST_S
                await self._drop()
        return False

    def reap(self) -> None:
        """Forget runners that have ended, and collect a zygote that has."""
        for pid, descriptor in tuple(self._runners.items()):
            if identity.has_ended(descriptor):
                os.close(descriptor)
                del self._runners[pid]
        if self._zygote is not None and not self._dialogue.locked() and self._zygote.has_ended():
            self._zygote.end()
            self._zygote = None

    def close(self) -> None:
        """End the zygote, not the runners."""
        if self._zygote is not None:
            self._zygote.end()
            self._zygote = None
        for descriptor in self._runners.values():
            os.close(descriptor)
        self._runners.clear()

    async def _fitting(self, spec: Spec, imported_with: dict[str, str]) -> ZygoteProcess:
        if self._zygote is not None and not self._zygote.fits(spec.interpreter, imported_with):
            await self._drop()
        if self._zygote is None:
            self._zygote = await to_thread.run_sync(
                ZygoteProcess, spec.interpreter, imported_with, spec.preload, self._settings
            )
        return self._zygote

    async def _drop(self) -> None:
        if self._zygote is not None:
            zygote, self._zygote = self._zygote, None
            await to_thread.run_sync(zygote.end)
