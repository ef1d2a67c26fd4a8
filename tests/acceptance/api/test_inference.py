"""OpenAI's own client asks models: whole answers, streams, refusals, and what happens to who goes away."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from finetuned.testing import House
from finetuned_sdk.engines import Request, RequestError
from finetuned_sdk.engines.host import listening
from finetuned_sdk.fake_engine import FakeEngine, FakeEngineParams

Open = Callable[..., Any]
Until = Callable[[Callable[[], object]], Any]
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three"}]


@asynccontextmanager
async def asker(house: House, *, scope: str = "admin", **settings: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client over TCP."""
    _, secret = await house.commands.tokens.create(scope=scope, name=None, actor="test")
    async with openai.AsyncOpenAI(
        base_url=f"{house.url}/v1", api_key=secret, **{"max_retries": 0, **settings}
    ) as client:
        yield client


class HeldEngine(FakeEngine):
    """Stops after the first chunk, or before a whole answer, until it may go on. Counts those that wait, and aborts."""

    def __init__(self, error: RequestError | None = None) -> None:
        super().__init__(FakeEngineParams(model="any"))
        self.error = error
        self.may_go_on = anyio.Event()
        self.waiting = 0
        self.aborted = 0

    async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
        async with aclosing(super().answer(request)) as parts:
            async for part in parts:
                if request.streams:
                    yield part
                await self._hold()
                if self.error is not None:
                    raise self.error
                if not request.streams:
                    yield part

    async def _hold(self) -> None:
        self.waiting += 1
        try:
            await self.may_go_on.wait()
        except BaseException:
            self.aborted += 1
            raise
        finally:
            self.waiting -= 1


@asynccontextmanager
async def answered_by(house: House, engine: FakeEngine) -> AsyncIterator[None]:
    """Another engine stands in the house."""
    path = house.jobs_dir.parent / "other.sock"
    async with listening(path, engine):
        house.engines.path = path
        yield


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A directory that is named as a model."""
    (tmp_path / "model").mkdir()
    return str(tmp_path / "model")


async def test_a_chat_is_answered_whole(house: House, model: str) -> None:
    async with asker(house) as client:
        answer = await client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2)
    assert answer.choices[0].message.content == "one two"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert house.engines.asked == []


async def test_a_chat_comes_in_chunks(house: House, model: str) -> None:
    async with asker(house) as client:
        stream = await client.chat.completions.create(model=model, messages=QUESTION, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == "one two three"
    assert len(texts) == 4


async def test_a_completion_is_answered_whole_and_in_chunks(house: House, model: str) -> None:
    async with asker(house) as client:
        answer = await client.completions.create(model=model, prompt="a b")
        stream = await client.completions.create(model=model, prompt="a b", stream=True)
        texts = [chunk.choices[0].text async for chunk in stream]
    assert answer.choices[0].text == "".join(texts) == "a b"


async def test_a_stream_is_what_openai_sends(house: House, client: aiohttp.ClientSession, model: str) -> None:
    body = {"model": model, "messages": QUESTION, "stream": True}
    async with client.post("/v1/chat/completions", json=body) as answer:
        assert answer.content_type == "text/event-stream"
        frames = (await answer.text()).split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(each.removeprefix("data: ")) for each in frames[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


async def test_an_unknown_model_is_told_with_the_nearest_name(house: House) -> None:
    async with asker(house) as client:
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model="smolm", messages=QUESTION)
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"


async def test_what_the_engine_refuses_keeps_its_words(house: House, model: str) -> None:
    async with asker(house) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model=model, messages=QUESTION, temperature=3)
        assert (refused.value.code, refused.value.param) == ("invalid_value", "temperature")
        with pytest.raises(openai.BadRequestError, match="top_p") as refused:
            await client.chat.completions.create(model=model, messages=QUESTION, top_p=0.5, stream=True)
        assert refused.value.code == "unsupported_parameter"


async def test_an_endpoint_that_no_engine_answers_is_refused(house: House, model: str) -> None:
    async with asker(house) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model=model, input="text")
    assert refused.value.code == "unsupported_endpoint"
    assert house.engines.asked == []


async def test_an_engine_that_does_not_come_in_time_is_asked_again_later(
    open_house: Open, model: str
) -> None:
    async with open_house(engine_wait_s=0) as house, asker(house) as client:
        house.engines.away = True
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(model=model, messages=QUESTION)
    assert refused.value.status_code == 503
    assert refused.value.code == "engine_not_ready"
    assert refused.value.response.headers["Retry-After"] == "5"


async def test_an_engine_that_cannot_come_is_not_asked_for_again(house: House, model: str) -> None:
    house.engines.failed = "it has no weights"
    async with asker(house, max_retries=5) as client:
        with pytest.raises(openai.InternalServerError, match="it has no weights") as refused:
            await client.chat.completions.create(model=model, messages=QUESTION)
    assert refused.value.status_code == 502
    assert refused.value.code == "engine_failed"


async def test_who_is_one_too_many_is_told_to_come_again(open_house: Open, model: str, until: Until) -> None:
    held = HeldEngine()
    async with open_house(engine_queue=1) as house, answered_by(house, held), asker(house) as client:
        stream = await client.chat.completions.create(model=model, messages=QUESTION, stream=True)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model=model, messages=QUESTION)
        assert refused.value.code == "engine_busy"
        assert refused.value.response.headers["Retry-After"] == "2"
        held.may_go_on.set()
        assert len([chunk async for chunk in stream]) == 4
        await until(lambda: not house.engines.asked)
        await client.chat.completions.create(model=model, messages=QUESTION)


async def test_an_error_in_the_middle_of_a_stream_is_told_in_it(house: House, model: str) -> None:
    error = RequestError("The cache is gone.", status=500, type="server_error", code="cache_lost")
    held = HeldEngine(error)
    held.may_go_on.set()
    async with answered_by(house, held), asker(house) as client:
        stream = await client.chat.completions.create(model=model, messages=QUESTION, stream=True)
        with pytest.raises(openai.APIError, match="The cache is gone") as raised:
            [chunk async for chunk in stream]
    assert raised.value.code == "cache_lost"


async def test_an_engine_that_ends_in_the_middle_of_a_stream_is_told_in_it(house: House, model: str) -> None:
    async with asker(house) as client:
        async with answered_by(house, HeldEngine()):
            stream = await client.chat.completions.create(model=model, messages=QUESTION, stream=True)
        with pytest.raises(openai.APIError) as raised:
            [chunk async for chunk in stream]
    assert raised.value.code == "engine_ended"


async def test_an_engine_that_ends_before_its_answer_is_to_be_asked_again(
    house: House, model: str, until: Until
) -> None:
    held = HeldEngine()
    refused: list[openai.InternalServerError] = []

    async def ask() -> None:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(model=model, messages=QUESTION)
        refused.append(raised.value)

    async with asker(house) as client, anyio.create_task_group() as tasks, answered_by(house, held):
        tasks.start_soon(ask)
        await until(lambda: held.waiting)
    assert (refused[0].status_code, refused[0].code) == (503, "engine_ended")


@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_goes_away_aborts_what_it_asked(
    house: House, client: aiohttp.ClientSession, model: str, until: Until, *, streams: bool
) -> None:
    held = HeldEngine()
    body = {"model": model, "messages": QUESTION, "stream": streams}

    async def ask() -> None:
        await (await client.post("/v1/chat/completions", json=body)).read()

    async with answered_by(house, held):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: held.waiting)
            tasks.cancel_scope.cancel()
        await until(lambda: held.aborted)
        await until(lambda: not house.engines.asked)
        held.may_go_on.set()
        async with client.post("/v1/chat/completions", json={**body, "stream": False}) as answer:
            assert answer.status == 200


async def test_a_client_that_never_reads_is_cut(open_house: Open, model: str, until: Until) -> None:
    async with open_house(sse_write_timeout_s=0.2) as house:
        engine = _Flood()
        async with answered_by(house, engine):
            stream = await anyio.connect_unix(house.addresses.socket)
            async with stream:
                body = json.dumps({"model": model, "messages": QUESTION, "stream": True}).encode()
                head = (
                    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                await stream.send(head.encode() + body)
                await until(lambda: engine.is_closed)
                await until(lambda: not house.engines.asked)


class _Flood(FakeEngine):
    """Never ends an answer."""

    def __init__(self) -> None:
        super().__init__(FakeEngineParams(model="any"))
        self.is_closed = False

    async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
        try:
            while True:
                yield {"choices": [], "text": "x" * 10_000}
                await anyio.lowlevel.checkpoint()
        finally:
            self.is_closed = True


async def test_a_directory_may_be_named_by_who_may_name_paths_only(house: House, model: str) -> None:
    async with asker(house, scope="operate") as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(model=model, messages=QUESTION)
        assert refused.value.code == "path_not_allowed"
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="ft:none:of:these", messages=QUESTION)


async def test_a_token_that_only_reads_asks_no_model(house: House) -> None:
    async with asker(house, scope="read") as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(model="any/model", messages=QUESTION)


async def test_a_body_without_a_model_names_what_is_missing(
    house: House, client: aiohttp.ClientSession
) -> None:
    async with client.post("/v1/chat/completions", json={"messages": QUESTION}) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert (error["code"], error["param"]) == ("missing_parameter", "model")


async def test_an_idempotency_key_is_of_no_account(
    house: House, client: aiohttp.ClientSession, model: str
) -> None:
    head = house.log.head
    for _ in range(2):
        async with client.post(
            "/v1/completions", json={"model": model, "prompt": "a"}, headers={"Idempotency-Key": "k"}
        ) as answer:
            assert answer.status == 200
            assert "Idempotency-Replayed" not in answer.headers
    assert house.log.head == head


async def test_a_refusal_without_a_code_has_ours(house: House, model: str) -> None:
    held = HeldEngine(RequestError("It does not do that.", status=200))
    held.may_go_on.set()
    async with answered_by(house, held), asker(house) as client:
        with pytest.raises(openai.InternalServerError, match="It does not do that") as refused:
            await client.chat.completions.create(model=model, messages=QUESTION)
    assert (refused.value.status_code, refused.value.code) == (500, "engine_refused")
