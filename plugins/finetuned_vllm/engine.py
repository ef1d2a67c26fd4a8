"""An engine over vLLM's ``AsyncLLM``: requests are answered by vLLM's own OpenAI server, without its HTTP.

Written for vLLM 0.32, whose serving classes are no public interface; what this module takes of them is what vLLM's own
``run_batch`` takes: ``init_app_state``, and the handlers for chat, completions and embeddings. Which of them there are
depends on the model: one that generates makes no embeddings, and one for embeddings generates nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from itertools import count
from typing import Any, Final

from pydantic import ValidationError
from starlette.datastructures import State
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from finetuned_sdk.engines import Adapter, EngineGoneError, EngineStatus, Request, RequestError
from finetuned_vllm.arguments import arguments
from finetuned_vllm.params import VLLMParams
from finetuned_vllm.statistics import Statistics

BASE: Final = "base"  # what the model itself is called in here; answers bear the name that was asked for

Json = Any


async def load_engine(model: str, params: VLLMParams, *, on_cpu: bool) -> VLLMEngine:
    """Load a model. Raises what vLLM raises if it cannot."""
    args = arguments(model, params, on_cpu=on_cpu, name=BASE)
    statistics = Statistics()
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(args), stat_loggers=[statistics.logger])
    state = State()
    await init_app_state(engine, state, args, await engine.get_supported_tasks())
    return VLLMEngine(engine, state, statistics)


class VLLMEngine:
    """See :class:`finetuned_sdk.engines.Engine`."""

    def __init__(self, engine: AsyncLLM, state: State, statistics: Statistics) -> None:
        self._engine = engine
        self._models = state.openai_serving_models
        self._statistics = statistics
        self._handlers = _handlers(state)
        self._numbers = count(1)
        self._under_way = 0

    @property
    def context_length(self) -> int:
        return int(self._engine.model_config.max_model_len)

    async def answer(self, request: Request) -> AsyncGenerator[Json, None]:
        parse, handle = self._handler(request)
        if request.adapter is not None:
            await self.add_adapter(request.adapter)
        asked_for = request.body.get("model", BASE)
        body = {**request.body, "model": BASE if request.adapter is None else request.adapter.name}
        _check_names(parse, body)
        self._under_way += 1
        try:
            answer = await handle(parse.model_validate(body))
            if isinstance(answer, ErrorResponse):
                raise _refusal(answer.error.model_dump())
            if not hasattr(answer, "__aiter__"):
                yield {**_whole(answer), "model": asked_for}
                return
            async for event in answer:
                for chunk in _chunks(event):
                    if "error" in chunk and self._engine.errored:  # a stream tells so of the engine's own end
                        raise EngineGoneError(chunk["error"]["message"])
                    if "error" in chunk:
                        raise _refusal(chunk["error"])
                    yield {**chunk, "model": asked_for}
        except (EngineDeadError, EngineGenerateError) as error:
            raise EngineGoneError(str(error)) from error
        except (VLLMClientError, ValueError, NotImplementedError) as error:
            raise _invalid(error) from error
        finally:
            self._under_way -= 1

    async def score(
        self, sequences: Sequence[Sequence[int]], adapter: Adapter | None = None
    ) -> list[list[float]]:
        lora = None if adapter is None else await self._lora(adapter)
        return [await self._scored(list(each), lora) for each in sequences]

    async def add_adapter(self, adapter: Adapter) -> None:
        if adapter.name in self._models.lora_requests:
            return
        asked = LoadLoRAAdapterRequest(lora_name=adapter.name, lora_path=adapter.path)
        answer = await self._models.load_lora_adapter(asked)
        if isinstance(answer, ErrorResponse) and adapter.name not in self._models.lora_requests:
            raise _refusal(answer.error.model_dump())

    async def drop_adapter(self, name: str) -> None:
        if name in self._models.lora_requests:
            await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))

    def status(self) -> EngineStatus:
        if self._engine.errored:
            raise self._engine.dead_error
        found = self._statistics
        # vLLM's figures are of its newest step: where all was aborted since, no other has come.
        running = min(found.running, self._under_way)
        return EngineStatus(
            running=running,
            waiting=self._under_way - running,
            tokens=found.tokens,
            kv_used=found.kv_used,
            adapters=tuple(self._models.lora_requests),
        )

    async def close(self) -> None:
        self._engine.shutdown()

    def _handler(self, request: Request) -> tuple[Any, Any]:
        try:
            return self._handlers[request.endpoint]
        except KeyError:
            raise RequestError(
                f"The engine with this model does not answer {request.endpoint}; it answers"
                f" {', '.join(self._handlers)}.",
                status=404,
                code="unknown_endpoint",
            ) from None

    async def _lora(self, adapter: Adapter) -> LoRARequest:
        await self.add_adapter(adapter)
        return self._models.lora_requests[adapter.name]

    async def _scored(self, ids: list[int], lora: LoRARequest | None) -> list[float]:
        if not 0 < len(ids) < self.context_length:
            raise RequestError(
                f"A sequence has {len(ids)} tokens, where 1 to {self.context_length - 1} can be scored.",
                code="context_length_exceeded",
            )
        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        last = None
        self._under_way += 1
        try:
            async for output in self._engine.generate(
                {"prompt_token_ids": ids}, sampling, f"score-{next(self._numbers)}", lora_request=lora
            ):
                last = output
        finally:
            self._under_way -= 1
        found = [] if last is None else last.prompt_logprobs or []
        return [float(each[token].logprob) for token, each in zip(ids[1:], found[1:], strict=True)]


def _handlers(state: State) -> dict[str, tuple[Any, Any]]:
    """By endpoint: what reads a body, and what answers it."""
    found: dict[str, tuple[Any, Any]] = {}
    if (chat := getattr(state, "openai_serving_chat", None)) is not None:
        found["/v1/chat/completions"] = (ChatCompletionRequest, chat.create_chat_completion)
    if (completion := getattr(state, "openai_serving_completion", None)) is not None:
        found["/v1/completions"] = (CompletionRequest, completion.create_completion)
    if (embedding := getattr(state, "serving_embedding", None)) is not None:
        found["/v1/embeddings"] = (EmbeddingCompletionRequest, embedding)
    return found


def _whole(answer: Any) -> Json:
    """An answer that is no stream: a model of pydantic's, or of embeddings a response of HTTP."""
    return json.loads(answer.body) if hasattr(answer, "body") else answer.model_dump(mode="json")


def _check_names(model: Any, body: Json) -> None:
    """VLLM passes over what it does not know; here it is refused by name."""
    known = {*model.model_fields, *(each.alias for each in model.model_fields.values() if each.alias)}
    for name in body:
        if name not in known:
            raise RequestError(
                f"The engine does not know the parameter {name!r}; leave it out.",
                code="unsupported_parameter",
                param=name,
            )


def _chunks(event: str) -> list[Json]:
    """The JSON of server-sent events as vLLM writes them."""
    data = [line.removeprefix("data: ") for line in event.splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each.strip() != "[DONE]"]


def _refusal(error: Json) -> RequestError:
    status = error.get("code") if isinstance(error.get("code"), int) else 400
    if status >= 500:
        return RequestError(error["message"], status=status, type="server_error", code="engine_error")
    too_long = "context length" in error["message"] or "maximum model length" in error["message"]
    return RequestError(
        error["message"],
        status=status,
        code="context_length_exceeded" if too_long else "invalid_value",
        param=error.get("param"),
    )


def _invalid(error: Exception) -> RequestError:
    """VLLM's own refusals, and pydantic's of a body."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        message, param = first["msg"].removeprefix("Value error, "), ".".join(map(str, first["loc"]))
        return _refusal({"message": message, "param": param or None, "code": 400})
    told = create_error_response(error).error.model_dump()
    return _refusal({**told, "message": str(error.args[0]) if error.args else told["message"]})
