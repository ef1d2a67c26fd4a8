"""Somebody else's plugin: a kind of job that counts down. It imports nothing but the SDK."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field

from finetuned_sdk import JobKind, Registry, WorkerContext, hookimpl

FINETUNED_SDK = "1.0"


class CountdownParams(BaseModel):
    """What a countdown takes."""

    model_config = ConfigDict(extra="forbid")

    start: int = Field(default=3, ge=1, description="The number to count down from.")


def count(ctx: WorkerContext, params: CountdownParams) -> None:
    """Count down, and leave the numbers."""
    said = list(range(params.start, 0, -1))
    for step, _ in enumerate(said, start=1):
        ctx.progress(current_step=step, total_steps=params.start, final=step == params.start)
    file = ctx.artifact_dir / "countdown.json"
    file.write_text(json.dumps(said), encoding="utf-8")
    ctx.artifact(file, kind="report")
    ctx.result(said=said)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind."""
    register.job_kind(
        JobKind(name="countdown", summary="Count down.", params=CountdownParams, entry=f"{__name__}:count")
    )
