"""A plugin of the tests: the fake kind, whose job stands still at a step until the test opens a gate.

So a job lasts as long as its test needs it to, however slow the machine is, and ends by itself then.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from finetuned_sdk import Registry, WorkerContext, fake, hookimpl


class GatedParams(fake.FakeParams):
    """What a fake job does, and where it waits."""

    gate: str = Field(description="The file without which it does not go on, whatever it is asked to do.")
    held_at: int = Field(3, ge=1, description="The first step that it does not go on after.")


class Gated:
    """A job's context in which the telling of a step lasts until the gate is open."""

    def __init__(self, ctx: WorkerContext, params: GatedParams) -> None:
        self._ctx = ctx
        self._held_at = params.held_at
        self._gate = Path(params.gate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def progress(self, **told: Any) -> None:
        """Tell of a step, and wait."""
        self._ctx.progress(**told)
        while told["current_step"] >= self._held_at and not self._gate.exists():
            time.sleep(0.01)


def run(ctx: WorkerContext, params: GatedParams) -> None:
    """Do the steps as the fake kind does."""
    fake.run(cast("WorkerContext", Gated(ctx, params)), params)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind."""
    register.job_kind(replace(fake.FAKE, name="gated", params=GatedParams, entry=f"{__name__}:run"))
