"""A plugin of the tests: the fake engine, which answers some requests only once the test opens a gate.

A request whose prompt has the word ``gate:PATH`` waits until there is a file at PATH.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from finetuned_sdk import Registry, WorkerContext, hookimpl
from finetuned_sdk.engines import Engine, Request, serve
from finetuned_sdk.fake_engine import FAKE_ENGINE, FakeEngine, FakeEngineParams

WORD = "gate:"


class GatedEngine(FakeEngine):
    """Repeats the last message once its gate is open."""

    async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
        for word in self._words(request):
            while word.startswith(WORD) and not Path(word.removeprefix(WORD)).exists():  # noqa: ASYNC110, ASYNC240
                await anyio.sleep(0.01)
        async for part in super().answer(request):
            yield part


def run(ctx: WorkerContext, params: FakeEngineParams) -> None:
    """Serve the engine."""

    async def load() -> Engine:
        return GatedEngine(params)

    serve(ctx, load)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind."""
    register.job_kind(replace(FAKE_ENGINE, name="gated-engine", entry=f"{__name__}:run"))
