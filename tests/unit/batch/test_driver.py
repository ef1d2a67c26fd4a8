"""A batch asks each request once, goes on where it was, waits for no single request, and bears what its engine does."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from tests.unit.batch.inputs import MODEL, URL, line, written

from finetuned_batch import driver, segments
from finetuned_batch.params import BatchParams
from finetuned_batch.suspects import NAME
from finetuned_sdk.bundle import write_json
from finetuned_sdk.engines import EngineState, Request, RequestError
from finetuned_sdk.engines.host import SOCKET_NAME, Host, listening
from finetuned_sdk.errors import BadDatasetError, JobError
from finetuned_sdk.fake_engine import FakeEngine, FakeEngineParams
from finetuned_sdk.testing import RecordingContext

Before = Callable[[str, int], None]


class WatchedEngine(FakeEngine):
    """Notes what it is asked. ``before`` is called with each prompt and how many came up to it, and may refuse it.

    Requests whose prompt begins with ``held``, and those after the first ``free``, wait until ``gate`` is set.
    """

    def __init__(self, before: Before = lambda _prompt, _count: None, *, free: float = math.inf) -> None:
        super().__init__(FakeEngineParams(model=MODEL))
        self.asked: list[str] = []
        self.gate = threading.Event()
        self._before = before
        self._free = free

    async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
        prompt = request.body["messages"][-1]["content"]
        assert request.priority < Request(endpoint=URL, body={}).priority  # what is asked online goes first
        self.asked.append(prompt)
        place = len(self.asked)
        self._before(prompt, place)
        is_held = prompt.startswith("held") or place > self._free
        while is_held and not self.gate.is_set():  # noqa: ASYNC110 - set by any thread
            await anyio.sleep(0.005)
        async for part in super().answer(request):
            yield part


@contextmanager
def serving(directory: Path, engine: FakeEngine) -> Iterator[EngineState]:
    """The engine on a loop of its own."""
    path = directory / SOCKET_NAME
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(listening(path, engine)),
    ):
        yield EngineState(state="ready", socket=str(path))


def context(tmp_path: Path, state: EngineState, attempt: int = 1) -> RecordingContext:
    ctx = RecordingContext(tmp_path, attempt=attempt, params={"input": str(tmp_path / "in.jsonl")})
    write_json(ctx.work_dir.parent / "engine.json", state.to_data())
    return ctx


def params(tmp_path: Path, **changes: Any) -> BatchParams:
    given = {"input": str(tmp_path / "in.jsonl"), "model": MODEL, "endpoint": URL, "window": 4, **changes}
    return BatchParams.model_validate(given)


def prompts(tmp_path: Path, *texts: str) -> list[str]:
    written(tmp_path / "in.jsonl", [line(f"row-{place}", text) for place, text in enumerate(texts)])
    return list(texts)


def files(ctx: RecordingContext) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for fact in ctx.of_type("artifact"):
        text = Path(fact["path"]).read_text(encoding="utf-8")
        found[fact["name"].rpartition("_")[2]] = [json.loads(each) for each in text.splitlines()]
    return found


def test_each_request_is_asked_once_and_told_in_the_order_of_the_input(tmp_path: Path) -> None:
    texts = prompts(tmp_path, *(f"say {place} " + "x " * (place % 9) for place in range(60)))
    engine = WatchedEngine()
    with serving(tmp_path, engine) as state:
        ctx = context(tmp_path, state)
        driver.run(ctx, params(tmp_path))
    assert sorted(engine.asked) == sorted(texts)
    assert [each["custom_id"] for each in files(ctx)["output.jsonl"]] == [f"row-{n}" for n in range(60)]
    assert ctx.results["completed"] == ctx.results["total"] == 60
    assert ctx.of_type("progress")[-1]["current_step"] == 60


def test_the_order_in_which_requests_are_asked_changes_no_answer(tmp_path: Path) -> None:
    texts = [f"{place} " + "same beginning " * (place % 3) for place in range(30)]
    found = []
    for window in (1, 30):
        home = tmp_path / str(window)
        home.mkdir()
        prompts(home, *texts)
        with serving(home, WatchedEngine()) as state:
            ctx = context(home, state)
            driver.run(ctx, params(home, window=window))
        found.append(files(ctx))
    assert found[0] == found[1]


def test_a_request_that_takes_long_holds_up_no_other(tmp_path: Path) -> None:
    prompts(tmp_path, "held the longest of all prompts, so that it is asked first", "two", "three", "four")
    engine = WatchedEngine(lambda prompt, count: engine.gate.set() if count == 4 else None)
    with serving(tmp_path, engine) as state:
        ctx = context(tmp_path, state)
        driver.run(ctx, params(tmp_path, window=2))  # the gate opens when the last of the others is asked
    assert engine.asked[0].startswith("held")
    assert len(files(ctx)["output.jsonl"]) == 4


def test_an_attempt_asks_only_what_those_before_it_have_not_got(tmp_path: Path) -> None:
    texts = prompts(tmp_path, *(f"say {place}" for place in range(50)))
    stopping: list[RecordingContext] = []
    engine = WatchedEngine(
        lambda _prompt, count: stopping[0].request_stop("a pause", checkpoint=True) if count == 25 else None,
        free=25,
    )
    with serving(tmp_path, engine) as state:
        first = context(tmp_path, state)
        stopping.append(first)
        driver.run(first, params(tmp_path))
        assert first.was_stopped
        assert first.of_type("artifact") == []
        kept = first.of_type("progress")[-1]["current_step"]
        engine.gate.set()
        second = context(tmp_path, state, attempt=2)
        driver.run(second, params(tmp_path))
    assert 0 < kept < 50
    assert len(engine.asked) <= len(texts) + 4  # what was in flight, at most, is asked again
    assert [each["custom_id"] for each in files(second)["output.jsonl"]] == [f"row-{n}" for n in range(50)]
    assert second.of_type("audit") == []  # the input was found to be good before


def test_a_torn_result_is_asked_for_again(tmp_path: Path) -> None:
    prompts(tmp_path, "one", "two")
    engine = WatchedEngine()
    with serving(tmp_path, engine) as state:
        first = context(tmp_path, state)
        driver.run(first, params(tmp_path))
        path = first.work_dir / segments.NAME
        path.write_bytes(path.read_bytes()[:-20])
        second = context(tmp_path, state, attempt=2)
        driver.run(second, params(tmp_path))
    assert len(engine.asked) == 3
    assert files(second) == files(first)


@pytest.mark.parametrize("status", [429, 503])
def test_an_engine_that_is_busy_or_stopping_is_asked_again(tmp_path: Path, status: int) -> None:
    prompts(tmp_path, "one")

    def busy(_prompt: str, count: int) -> None:
        if count < 5:
            raise RequestError("later", status=status, type="server_error", code="engine_stopping")

    with serving(tmp_path, WatchedEngine(busy)) as state:
        ctx = context(tmp_path, state)
        driver.run(ctx, params(tmp_path))
    assert set(files(ctx)) == {"output.jsonl"}


def test_a_request_at_which_the_engine_fails_three_times_is_an_error_line(tmp_path: Path) -> None:
    prompts(tmp_path, "bad", "good")

    def fail(prompt: str, _count: int) -> None:
        if prompt == "bad":
            raise ZeroDivisionError

    engine = WatchedEngine(fail)
    with serving(tmp_path, engine) as state:
        ctx = context(tmp_path, state)
        driver.run(ctx, params(tmp_path))
    assert engine.asked.count("bad") == 3
    (error,) = files(ctx)["error.jsonl"]
    assert error["response"]["status_code"] == 500
    assert error["response"]["body"]["error"]["code"] == "engine_error"


class DyingEngine(WatchedEngine):
    """Closes all connections, as its process' end would, when it is asked one of ``deadly``."""

    def __init__(self, *deadly: str) -> None:
        super().__init__(self._look)
        self.host: Host | None = None
        self.deaths: list[list[str]] = []  # what was in flight
        self.leaves = False  # whether it says that it was told to stop
        self.goes_on_listening = False  # as a process that was killed may for a moment
        self.path = Path()
        self._deadly = deadly
        self._in_flight: list[str] = []

    def _look(self, prompt: str, _count: int) -> None:
        if prompt not in self._deadly:
            return
        self.deaths.append(list(self._in_flight))
        assert self.host is not None
        if not self.goes_on_listening:
            self._move()
        for connection in list(self.host._connections):
            if self.leaves:
                connection.tell_leaving()
                connection.writer.close()
            else:
                connection.writer.transport.abort()

    def _move(self) -> None:
        """Be another life of the engine: each has a socket of its own."""
        socket = self.path.with_name(f"{len(self.deaths)}.sock")
        socket.symlink_to(self.path)
        for each in self.path.parent.rglob("engine.json"):
            write_json(each, EngineState(state="ready", socket=str(socket)).to_data())

    async def answer(self, request: Request) -> AsyncGenerator[Any, None]:
        prompt = request.body["messages"][-1]["content"]
        self._in_flight.append(prompt)
        try:
            async for part in super().answer(request):
                yield part
        finally:
            self._in_flight.remove(prompt)


@contextmanager
def dying(directory: Path, engine: DyingEngine) -> Iterator[EngineState]:
    path = directory / SOCKET_NAME
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(listening(path, engine)) as host,
    ):
        engine.host, engine.path = host, path
        yield EngineState(state="ready", socket=str(path))


def test_engines_that_end_one_after_another_without_an_answer_fail_the_batch(tmp_path: Path) -> None:
    texts = prompts(tmp_path, "one", "two", "three", "four")
    engine = DyingEngine(*texts)
    with dying(tmp_path, engine) as state:
        ctx = context(tmp_path, state)
        with pytest.raises(JobError) as raised:
            driver.run(ctx, params(tmp_path, window=1))
    assert raised.value.code == "engine_keeps_dying"
    assert len(engine.deaths) == 5


def test_a_request_that_its_engine_dies_of_is_found_and_the_batch_goes_on(tmp_path: Path) -> None:
    texts = prompts(tmp_path, *(f"say {place}" for place in range(12)), "deadly")
    engine = DyingEngine("deadly")
    with dying(tmp_path, engine) as state:
        ctx = context(tmp_path, state)
        driver.run(ctx, params(tmp_path))
    assert len(engine.deaths) == 4
    assert engine.deaths[-2:] == [["deadly"], ["deadly"]]  # alone
    (error,) = files(ctx)["error.jsonl"]
    assert (error["custom_id"], error["error"]["code"]) == (f"row-{len(texts) - 1}", "engine_died")
    assert len(files(ctx)["output.jsonl"]) == 12
    assert (ctx.results["completed"], ctx.results["failed"]) == (12, 1)


def test_an_engine_that_still_takes_connections_while_it_dies_has_died_once(tmp_path: Path) -> None:
    prompts(tmp_path, "killed")
    engine = DyingEngine("killed")
    engine.goes_on_listening = True
    with dying(tmp_path, engine) as state:
        ctx = context(tmp_path, state)
        look = engine._before

        def still_there(prompt: str, count: int) -> None:
            if len(engine.deaths) < 7:
                look(prompt, count)

        engine._before = still_there
        driver.run(ctx, params(tmp_path))
    assert len(engine.deaths) == 7
    assert len((ctx.work_dir / NAME).read_text().splitlines()) == 1
    assert set(files(ctx)) == {"output.jsonl"}


def test_what_is_known_of_an_engines_deaths_survives_the_attempt(tmp_path: Path) -> None:
    prompts(tmp_path, "deadly")
    engine = DyingEngine("deadly")
    with dying(tmp_path, engine) as state:
        first = context(tmp_path, state)
        look = engine._before

        def stop_after_two(prompt: str, count: int) -> None:
            if len(engine.deaths) == 2:
                first.request_stop("a pause", checkpoint=True)
                engine.gate.wait(20)  # until the attempt has ended
                return
            look(prompt, count)

        engine._before = stop_after_two
        driver.run(first, params(tmp_path))
        engine._before = look
        engine.gate.set()
        second = context(tmp_path, state, attempt=2)
        driver.run(second, params(tmp_path))
    assert len(engine.deaths) == 4
    assert files(second)["error.jsonl"][0]["error"]["code"] == "engine_died"


def test_a_request_is_not_blamed_for_one_death_while_it_was_asked_alone(tmp_path: Path) -> None:
    """Somebody else may have killed the engine just then, who had not asked it yet when it was looked at."""
    prompts(tmp_path, "innocent")
    engine = DyingEngine("innocent")
    with dying(tmp_path, engine) as state:
        ctx = context(tmp_path, state)
        look = engine._before

        def killed_three_times(prompt: str, count: int) -> None:
            if len(engine.deaths) < 3:
                look(prompt, count)

        engine._before = killed_three_times
        driver.run(ctx, params(tmp_path))
    assert len(engine.deaths) == 3
    assert set(files(ctx)) == {"output.jsonl"}


def test_an_engine_that_was_told_to_stop_has_died_of_nothing(tmp_path: Path) -> None:
    prompts(tmp_path, "asked at the wrong time")
    engine = DyingEngine("asked at the wrong time")
    engine.leaves = True
    with dying(tmp_path, engine) as state:
        ctx = context(tmp_path, state)
        look = engine._before
        engine._before = lambda prompt, count: look(prompt, count) if count < 8 else None
        driver.run(ctx, params(tmp_path))
    assert len(engine.deaths) == 7
    assert set(files(ctx)) == {"output.jsonl"}


def test_a_job_without_an_engine_says_why(tmp_path: Path) -> None:
    prompts(tmp_path, "one")
    ctx = context(tmp_path, EngineState(state="failed", reason="it does not load"))
    with pytest.raises(JobError, match="it does not load") as raised:
        driver.run(ctx, params(tmp_path))
    assert raised.value.code == "engine_failed"


def test_a_malformed_input_is_reported_before_anything_is_asked(tmp_path: Path) -> None:
    written(tmp_path / "in.jsonl", [line("a"), "{", line("a")])
    ctx = context(tmp_path, EngineState(state="failed", reason="it must not be asked"))
    with pytest.raises(BadDatasetError) as raised:
        driver.run(ctx, params(tmp_path))
    assert [problem.row for problem in raised.value.problems] == [2, 3]
    (report,) = [fact["report"] for fact in ctx.of_type("audit")]
    assert [each["code"] for each in report["extra"]["problems"]] == [
        "invalid_json_line",
        "duplicate_custom_id",
    ]
    assert report["extra"]["total_problems"] == 2
