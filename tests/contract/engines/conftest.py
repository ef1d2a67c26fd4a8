"""The engines that ship, as one fixture: what is promised of an engine is tried with each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.transformers_engine.tiny_engine import tiny_engine

from finetuned_sdk.engines import Adapter, Engine
from finetuned_sdk.fake_engine import FakeEngine, FakeEngineParams

FAKE, EMBEDDED, BY_FORWARD = "fake", "transformers", "transformers, by its forward"


@dataclass(frozen=True)
class Made:
    """An engine, and an adapter that it can load."""

    engine: Engine
    adapter: Adapter


Make = Callable[..., AbstractAsyncContextManager[Made]]


@pytest.fixture(
    params=[
        FAKE,
        pytest.param(EMBEDDED, marks=pytest.mark.torch),
        pytest.param(BY_FORWARD, marks=pytest.mark.torch),
    ]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes an engine that computes ``at_once`` requests at once, and closes it."""

    @asynccontextmanager
    async def make_(*, at_once: int = 8) -> AsyncIterator[Made]:
        engine: Any
        if request.param == FAKE:
            engine = FakeEngine(FakeEngineParams(model="any", at_once=at_once, token_seconds=0.001))
            adapter = Adapter("mine", str(tmp_path))
        else:
            pytest.importorskip("torch")
            engine, adapter = tiny_engine(tmp_path, packed=request.param == EMBEDDED, at_once=at_once)
        try:
            yield Made(engine, adapter)
        finally:
            await engine.close()

    return make_
