"""A plugin of the tests: a callback that holds a training before the passes of a step until the test opens a gate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from finetuned_sdk import Callback, Registry, WorkerContext, hookimpl


class HeldStepParams(BaseModel):
    """Where the training waits, and for what."""

    gate: str = Field(description="The file without which it does not go on.")
    step: int = Field(ge=1, description="The step that it does not make; its rows are there already.")


def create(ctx: WorkerContext, params: HeldStepParams) -> Any:
    """Make the callback."""
    from transformers import TrainerCallback

    class HeldStep(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            while state.global_step + 1 == params.step and not Path(params.gate).exists():
                ctx.advancing()
                time.sleep(0.01)

    return HeldStep()


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the callback."""
    register.callback(
        Callback(
            name="held_step",
            summary="Wait before a step.",
            params=HeldStepParams,
            entry=f"{__name__}:create",
            path_params=("gate",),
        )
    )
