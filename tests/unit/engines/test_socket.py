"""Engine and asker over a real socket: many at once, aborts, engines that go, lines that are no messages."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from finetuned.engines.links import Links
from finetuned_sdk.engines import (
    Adapter,
    EngineGoneError,
    EngineStatus,
    Request,
    RequestError,
    connect,
    messages,
    serve,
)
from finetuned_sdk.engines.host import listening
from finetuned_sdk.fake_engine import FakeEngine, FakeEngineParams
from finetuned_sdk.testing import RecordingContext


class Engine(FakeEngine):
    """Holds its answers until it may go on; counts those that wait and those that were aborted."""

    def __init__(self) -> None:
        super().__init__(FakeEngineParams(model="any", at_once=1000))
        self.may_go_on = anyio.Event()
        self.waiting = 0
        self.aborted = 0

    async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
        if request.body.get("prompt") == "hold":
            self.waiting += 1
            try:
                await self.may_go_on.wait()
            except asyncio.CancelledError:
                self.aborted += 1
                raise
            finally:
                self.waiting -= 1
        if request.body.get("prompt") == "break":
            raise ValueError("a defect")
        async for part in super().answer(request):
            yield part


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ft-") as directory:
        yield Path(directory) / "engine.sock"


def completion(prompt: str, **more: Any) -> Request:
    return Request(endpoint="/v1/completions", body={"model": "any", "prompt": prompt, **more})


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - no event comes from there
            await anyio.sleep(0.01)


@asynccontextmanager
async def raw(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_many_answers_come_over_one_connection_each_to_who_asked(path: Path) -> None:
    async with listening(path, Engine()), connect(path) as client:

        async def ask(number: int) -> None:
            answer = await client.answer(completion(f"answer {number}"))
            assert answer["choices"][0]["text"] == f"answer {number}"

        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(ask, number)


async def test_a_priority_comes_with_its_request_and_who_says_none_has_none(path: Path) -> None:
    class Noting(Engine):
        def __init__(self) -> None:
            super().__init__()
            self.priorities: list[int] = []

        async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
            self.priorities.append(request.priority)
            async for part in super().answer(request):
                yield part

    engine = Noting()
    async with listening(path, engine):
        async with connect(path) as client:
            body = {"model": "any", "prompt": "a"}
            await client.answer(Request(endpoint="/v1/completions", body=body, priority=-1))
            await client.answer(Request(endpoint="/v1/completions", body=body))
        async with raw(path) as (reader, writer):  # as an older SDK asks
            asked = {"id": 1, "op": "answer", "endpoint": "/v1/completions", "body": body, "adapter": None}
            writer.write(messages.encode(asked))
            assert "part" in messages.decode(await reader.readline())
    assert engine.priorities == [-1, 0, 0]


async def test_a_question_that_is_left_before_its_answer_is_aborted_and_the_others_go_on(path: Path) -> None:
    engine = Engine()
    async with listening(path, engine), connect(path) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.answer, completion("hold"))
                await until(lambda: engine.waiting)
                scope.cancel()
        await until(lambda: engine.aborted)
        assert (await client.answer(completion("a")))["choices"][0]["text"] == "a"


async def test_a_stream_that_is_left_in_its_middle_is_aborted(path: Path) -> None:
    engine = FakeEngine(FakeEngineParams(model="any", token_seconds=3600))
    async with listening(path, engine), connect(path) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def read() -> None:
                    async with client.ask(completion("a b", stream=True)) as parts:
                        [part async for part in parts]

                tasks.start_soon(read)
                await until(lambda: engine.status().running)
                scope.cancel()
        await until(lambda: not engine.status().running)


async def test_a_connection_that_closes_aborts_what_was_asked_over_it(path: Path) -> None:
    engine = Engine()
    async with listening(path, engine):
        async with raw(path) as (_, writer):
            message = {"id": 1, "op": "answer", "endpoint": "/v1/completions", "body": {"prompt": "hold"}}
            writer.write(messages.encode({**message, "adapter": None}))
            await until(lambda: engine.waiting)
        await until(lambda: engine.aborted)


async def test_an_engine_that_goes_is_told_to_all_who_wait(path: Path) -> None:
    engine = Engine()
    gone: list[EngineGoneError] = []

    async def ask(client: Any) -> None:
        with pytest.raises(EngineGoneError) as raised:
            await client.answer(completion("hold"))
        gone.append(raised.value)

    async with anyio.create_task_group() as tasks:
        async with listening(path, engine):
            links = Links()
            await tasks.start(links.run)
            client = await links.client(path)
            for _ in range(3):
                tasks.start_soon(ask, client)
            await until(lambda: engine.waiting == 3)
        await client.wait_gone()
        await until(lambda: len(gone) == 3)
        with pytest.raises(EngineGoneError):
            await client.answer(completion("a"))
        tasks.cancel_scope.cancel()


async def test_nobody_listens_where_no_engine_is(path: Path) -> None:
    with pytest.raises(EngineGoneError, match="does not listen"):
        async with connect(path):
            pass


async def test_a_refusal_comes_as_it_was_raised(path: Path) -> None:
    async with listening(path, Engine()), connect(path) as client:
        with pytest.raises(RequestError) as refused:
            await client.answer(completion("a", temperature=3))
        error = refused.value
        assert (error.status, error.code, error.param) == (400, "invalid_value", "temperature")


async def test_a_defect_of_an_engine_fails_one_request(path: Path) -> None:
    async with listening(path, Engine()), connect(path) as client:
        with pytest.raises(RequestError, match="ValueError: a defect") as failed:
            await client.answer(completion("break"))
        assert (failed.value.status, failed.value.code) == (500, "engine_error")
        assert await client.answer(completion("a"))


async def test_a_request_that_is_too_long_is_refused_before_it_is_sent(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LONGEST", 1000)
    async with listening(path, Engine()), connect(path) as client:
        with pytest.raises(RequestError) as refused:
            await client.answer(completion("x" * 1000))
        assert refused.value.status == 413
        assert await client.answer(completion("a"))


@pytest.mark.parametrize("line", [b"no message\n", b"[1]\n", b'{"id": 1}\n', b"x" * 3000])
async def test_who_sends_no_messages_is_cut_off_and_the_others_are_not(
    path: Path, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LONGEST", 2000)
    async with listening(path, Engine()), connect(path) as client:
        async with raw(path) as (reader, writer):
            writer.write(line)
            with anyio.fail_after(20):
                assert await reader.read() == b""
        assert await client.answer(completion("a"))


async def test_an_engine_that_sends_no_messages_counts_as_gone(path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"no message\n")
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    async with server:
        with pytest.raises(EngineGoneError, match="no message"):
            async with connect(path) as client:
                await client.answer(completion("a"))


async def test_scores_adapters_and_the_status_are_asked_over_the_same_connection(path: Path) -> None:
    adapter = Adapter("over-1", "/adapters/over")
    async with listening(path, Engine()), connect(path) as client:
        assert await client.score([[1, 1, 3]], adapter) == [[-0.5, -0.25]]
        assert (await client.status()).adapters == ("over-1",)
        await client.drop_adapter("over-1")
        assert (await client.status()).adapters == ()
        await client.add_adapter(adapter)
        assert (await client.status()).adapters == ("over-1",)


async def test_an_engine_that_drains_answers_what_it_was_asked_and_takes_no_more(path: Path) -> None:
    engine = Engine()
    answers: list[Any] = []

    async def ask(client: Any) -> None:
        answers.append(await client.answer(completion("hold")))

    async with listening(path, engine) as host, connect(path) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client)
        await until(lambda: engine.waiting)
        tasks.start_soon(host.drain, 60.0)
        await until(lambda: host.is_closing)
        with pytest.raises(RequestError) as refused:
            await client.answer(completion("a"))
        assert refused.value.code == "engine_stopping"
        engine.may_go_on.set()
    assert len(answers) == 1


async def test_all_who_ask_one_engine_share_a_connection_until_it_ends(path: Path) -> None:
    links = Links()
    with pytest.raises(EngineGoneError):
        await links.client(path)
    async with anyio.create_task_group() as tasks:
        await tasks.start(links.run)
        with pytest.raises(EngineGoneError):  # none listens, and the next one is asked anew
            await links.client(path)
        async with listening(path, Engine()):
            first, second = await links.client(path), await links.client(path)
            assert first is second
        await first.wait_gone()
        async with listening(path, Engine()):
            await until(lambda: first.is_gone)
            third = await links.client(path)
            assert third is not first
            assert await third.answer(completion("a"))
        tasks.cancel_scope.cancel()


def test_a_message_keeps_any_text(path: Path) -> None:
    text = 'line\nbreak " \u2028 \U0001f600'
    assert messages.decode(messages.encode({"id": 1, "text": text})) == {"id": 1, "text": text}
    assert json.loads(messages.encode({"id": 1, "text": "\ud800"}))["id"] == 1


async def test_who_asks_is_told_that_the_engine_ends_because_it_was_told_to(path: Path) -> None:
    async with listening(path, Engine()) as host, connect(path) as client:
        assert not client.is_leaving
        await client.answer(completion("a"))
        await host.drain(0)
        await until(lambda: client.is_leaving)


async def test_an_engine_whose_inside_is_gone_closes_the_connection_so_that_all_is_asked_again(
    path: Path,
) -> None:
    class Dead(FakeEngine):
        async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
            yield await self._dead()

        async def _dead(self) -> Any:
            raise EngineGoneError("its core has died")

    async with listening(path, Dead(FakeEngineParams(model="any"))), connect(path) as client:
        with pytest.raises(EngineGoneError):
            await client.answer(completion("a"))


def test_an_engine_that_has_failed_ends_its_process_with_what_it_failed_of(tmp_path: Path) -> None:
    class Failed(Engine):
        def status(self) -> EngineStatus:
            raise ZeroDivisionError("a defect")

    async def load() -> Engine:
        return Failed()

    with pytest.raises(ZeroDivisionError, match="a defect"):
        serve(RecordingContext(tmp_path), load)
