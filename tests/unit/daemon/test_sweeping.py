"""What an archiving could not delete is deleted later, by a daemon that goes on meanwhile."""

from __future__ import annotations

from typing import cast

import anyio
import pytest

from finetuned import daemon, patience
from finetuned.store import Log
from finetuned_events import LogFullError, LogWriteError


class Swept:
    """A log that can sweep only at some times."""

    def __init__(self, *outcomes: Exception | int) -> None:
        self.left = list(outcomes)
        self.done = anyio.Event()

    async def sweep(self) -> int:
        outcome = self.left.pop(0)
        if not self.left:
            self.done.set()
            await anyio.sleep_forever()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def test_sweeping_is_tried_again_after_a_failure_and_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(daemon, "SWEEP_S", 0.0)
    log = Swept(LogFullError(), LogWriteError(), 20, 0, LogFullError(), 3, 0)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(daemon._sweep, cast("Log", log))
            await log.done.wait()
            tasks.cancel_scope.cancel()
    assert log.left == []
