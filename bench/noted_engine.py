"""A plugin of the benchmark: the embedded engine, which notes when each request reaches it.

A line of ``note`` is nanoseconds of the monotonic clock, which all processes of a machine have in common.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio.to_thread

from finetuned_sdk import EngineKind, Registry, WorkerContext, hookimpl
from finetuned_sdk.engines import Engine, Request, serve
from finetuned_transformers.params import TransformersParams
from finetuned_transformers.plugin import check, resources


class NotedParams(TransformersParams):
    """Those of the embedded engine, and the file of its notes."""

    note: str


def run(ctx: WorkerContext, params: NotedParams) -> None:
    """Serve the engine."""
    from finetuned_transformers.engine import TransformersEngine
    from finetuned_transformers.loading import load

    descriptor = os.open(params.note, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    class NotedEngine(TransformersEngine):
        async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
            os.write(descriptor, b"%d\n" % time.monotonic_ns())
            async for part in super().answer(request):
                yield part

    async def loaded() -> Engine:
        return NotedEngine(await anyio.to_thread.run_sync(load, ctx, params))

    serve(ctx, loaded)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind."""
    register.job_kind(
        EngineKind(
            name="noted",
            summary="The embedded engine with notes of when it was asked.",
            params=NotedParams,
            entry=f"{__name__}:run",
            check=check,
            resources=resources,
            model_params=("model",),
            endpoints=("/v1/chat/completions",),
        )
    )
