"""An engine for tests: it answers with the words of the prompt, one a token, in whatever way a test wants.

Tests register it themselves; it is no entry point. The model is a directory with ``fake_engine.json``, or nothing at all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
from pydantic import BaseModel, ConfigDict, Field

from finetuned_sdk.context import WorkerContext
from finetuned_sdk.engines import (
    Adapter,
    Engine,
    EngineGoneError,
    EngineStatus,
    Request,
    RequestError,
    connect,
    engine_of,
    serve,
)
from finetuned_sdk.errors import JobError
from finetuned_sdk.hooks import hookimpl
from finetuned_sdk.kinds import EngineKind, EngineNeed, Host, JobKind, Resources
from finetuned_sdk.registry import Registry

CONTEXT_LENGTH: Final = 512
ASKING: Final = "asking"  # the phase
ENDPOINTS: Final = ("/v1/chat/completions", "/v1/completions")
KNOWN: Final = frozenset({"model", "messages", "prompt", "stream", "max_tokens", "temperature", "seed", "n"})

Json = Any


class FakeEngineParams(BaseModel):
    """How the engine behaves. Times are seconds."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="The model; it is not looked at.")
    loading_seconds: float = Field(0.0, ge=0, description="How long it loads.")
    token_seconds: float = Field(0.0, ge=0, description="How long a token takes.")
    at_once: int = Field(8, ge=1, description="Requests that it answers at once; others wait.")
    fails_to_load: bool = Field(False, description="Whether it gives up while it loads.")
    dies_after: int | None = Field(None, description="Kill itself after so many answers.")
    dies_of: str | None = Field(None, description="Kill itself when it is asked a text with this word.")
    devices: int = Field(1, ge=0, description="Devices that it needs.")


class FakeEngine:
    """Repeats the last message (or the prompt), word by word; an adapter's name comes first."""

    def __init__(self, params: FakeEngineParams) -> None:
        self._params = params
        self._slots = anyio.CapacityLimiter(params.at_once)
        self._adapters: dict[str, Adapter] = {}
        self._tokens = 0
        self._answered = 0

    @property
    def context_length(self) -> int:
        return CONTEXT_LENGTH

    async def answer(self, request: Request) -> AsyncGenerator[Json, None]:
        words = self._words(request)
        if self._params.dies_of in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if request.adapter is not None:
            await self.add_adapter(request.adapter)
            words = [request.adapter.name, *words]
        limit = request.body.get("max_tokens")
        finish = "stop" if limit is None or limit >= len(words) else "length"
        words = words[:limit]
        async with self._slots:
            for place, word in enumerate(words):
                await anyio.sleep(self._params.token_seconds)
                self._tokens += 1
                if request.streams:
                    yield _chunk(request, word if place == 0 else f" {word}", None)
        self._answered += 1
        if self._answered == self._params.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        yield _chunk(request, "", finish) if request.streams else _body(request, words, finish)

    async def score(
        self, sequences: Sequence[Sequence[int]], adapter: Adapter | None = None
    ) -> list[list[float]]:
        if adapter is not None:
            await self.add_adapter(adapter)
        for each in sequences:
            if len(each) > CONTEXT_LENGTH:
                raise RequestError(
                    f"A sequence has {len(each)} tokens; at most {CONTEXT_LENGTH} fit.",
                    code="context_length_exceeded",
                )
        return [[-1.0 / (1 + token) for token in each[1:]] for each in sequences]

    async def add_adapter(self, adapter: Adapter) -> None:
        self._adapters[adapter.name] = adapter

    async def drop_adapter(self, name: str) -> None:
        self._adapters.pop(name, None)

    def status(self) -> EngineStatus:
        used = self._slots.statistics()
        return EngineStatus(
            running=used.borrowed_tokens,
            waiting=used.tasks_waiting,
            tokens=self._tokens,
            kv_used=used.borrowed_tokens / self._params.at_once,
            adapters=tuple(self._adapters),
        )

    async def close(self) -> None:
        self._adapters.clear()

    def _words(self, request: Request) -> list[str]:
        body = request.body
        if request.endpoint not in ENDPOINTS:
            raise RequestError(
                f"The fake engine does not answer {request.endpoint}.", code="unknown_endpoint"
            )
        for name in body:
            if name not in KNOWN:
                raise RequestError(
                    f"The fake engine does not know the parameter {name!r}; leave it out.",
                    param=name,
                    code="unsupported_parameter",
                )
        if not 0 <= body.get("temperature", 1) <= 2:
            raise RequestError("temperature must be from 0 to 2.", param="temperature", code="invalid_value")
        text = body["messages"][-1]["content"] if request.endpoint == ENDPOINTS[0] else body["prompt"]
        words = str(text).split()
        if len(words) > CONTEXT_LENGTH:
            raise RequestError(
                f"The prompt has {len(words)} tokens; at most {CONTEXT_LENGTH} fit.",
                code="context_length_exceeded",
                param="messages",
            )
        return words


def _chunk(request: Request, text: str, finish: str | None) -> Json:
    if request.endpoint == ENDPOINTS[0]:
        delta = {"content": text} if finish is None else {}
        choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        kind = "chat.completion.chunk"
    else:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        kind = "text_completion"
    return {
        "id": "fake-1",
        "object": kind,
        "created": 0,
        "model": request.body.get("model"),
        "choices": [choice],
    }


def _body(request: Request, words: list[str], finish: str) -> Json:
    text = " ".join(words)
    if request.endpoint == ENDPOINTS[0]:
        choice: Json = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": None,
            "finish_reason": finish,
        }
        kind = "chat.completion"
    else:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        kind = "text_completion"
    usage = {"prompt_tokens": len(words), "completion_tokens": len(words), "total_tokens": 2 * len(words)}
    return {
        "id": "fake-1",
        "object": kind,
        "created": 0,
        "model": request.body.get("model"),
        "choices": [choice],
        "usage": usage,
    }


def resources(params: FakeEngineParams, host: Host) -> Resources:  # noqa: ARG001 - the signature is the contract's
    """As many devices as it says."""
    return Resources(devices=params.devices)


FAKE_ENGINE = EngineKind(
    name="fake-engine",
    summary="Answers with the words of the prompt.",
    params=FakeEngineParams,
    entry="finetuned_sdk.fake_engine:run",
    resources=resources,
    model_params=("model",),
    endpoints=ENDPOINTS,
)


class FakeAskingParams(BaseModel):
    """What a job asks that asks an engine."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="The model that is asked.")
    engine: str | None = Field(None, description="The kind of engine; the daemon's default if not set.")
    options: dict[str, Any] = Field(default_factory=dict, description="How the engine is to behave.")
    requests: int = Field(3, ge=0, description="How many requests it makes, one after another.")


def need(params: FakeAskingParams, host: Host) -> EngineNeed:  # noqa: ARG001 - the signature is the contract's
    """The engine that the job says."""
    return EngineNeed(model=params.model, engine=params.engine, options=params.options)


def no_device(params: FakeAskingParams, host: Host) -> Resources:  # noqa: ARG001 - the signature is the contract's
    """None: its engine has one."""
    return Resources(devices=0)


FAKE_ASKING = JobKind(
    name="fake-asking",
    summary="Asks an engine.",
    params=FakeAskingParams,
    entry="finetuned_sdk.fake_engine:ask",
    resources=no_device,
    engine=need,
    model_params=("model",),
)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kinds; a test registers this module as a plugin."""
    register.job_kind(FAKE_ENGINE)
    register.job_kind(FAKE_ASKING)


def ask(ctx: WorkerContext, params: FakeAskingParams) -> None:
    """Ask, and ask again what an engine that died had not answered."""
    anyio.run(_ask, ctx, params)


async def _ask(ctx: WorkerContext, params: FakeAskingParams) -> None:
    answers: list[str] = []
    while len(answers) < params.requests and ctx.stop_requested is None:
        state = await engine_of(ctx, phase=ASKING)
        if state is None:
            return
        try:
            async with connect(Path(state.socket or "")) as client:
                while len(answers) < params.requests and ctx.stop_requested is None:
                    body = {"model": params.model, "prompt": f"answer {len(answers)}"}
                    request = Request(endpoint="/v1/completions", body=body, adapter=state.adapter)
                    answers.append((await client.answer(request))["choices"][0]["text"])
                    ctx.progress(current_step=len(answers), total_steps=params.requests)
        except EngineGoneError:
            continue
    ctx.result(answers=answers)


def run(ctx: WorkerContext, params: FakeEngineParams) -> None:
    """Serve the engine."""

    async def load() -> Engine:
        await anyio.sleep(params.loading_seconds)
        if params.fails_to_load:
            raise JobError("The fake engine was told to fail; leave out fails_to_load.", code="fake_failed")
        return FakeEngine(params)

    serve(ctx, load)
