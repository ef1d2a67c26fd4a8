"""Waiting for the engine that a job asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from finetuned_sdk import phases
from finetuned_sdk.engines.state import EngineState
from finetuned_sdk.errors import JobError

if TYPE_CHECKING:
    from finetuned_sdk.context import WorkerContext

LOOK_S: Final = 0.02


async def engine_of(ctx: WorkerContext, *, phase: str) -> EngineState | None:
    """The job's engine, once it answers; ``None`` if the job is to stop before. However long it takes, that is no stall.

    The job is in ``phase`` when the engine is there, and ``waiting_for_engine`` until then. Raises ``JobError``
    (``engine_failed``) if there will be none.
    """
    told = False
    while ctx.stop_requested is None:
        state = ctx.engine
        if state.state == "ready":
            if told:
                ctx.phase(phase)
            return state
        if state.state == "failed":
            raise JobError(f"There is no engine for this: {state.reason}", code="engine_failed")
        if not told:
            ctx.phase(phases.WAITING_FOR_ENGINE)
            told = True
        ctx.advancing()
        await anyio.sleep(LOOK_S)
    return None
