"""The engine's process."""

from __future__ import annotations

import anyio.to_thread

from finetuned_sdk import WorkerContext
from finetuned_sdk.engines import Engine, serve
from finetuned_transformers.engine import TransformersEngine
from finetuned_transformers.loading import load
from finetuned_transformers.params import TransformersParams


def run(ctx: WorkerContext, params: TransformersParams) -> None:
    """Load the model and answer until told to stop. Raises ``JobError`` for a model that cannot be loaded."""

    async def loaded() -> Engine:
        return TransformersEngine(await anyio.to_thread.run_sync(load, ctx, params))

    serve(ctx, loaded)
