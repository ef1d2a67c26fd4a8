from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job

from finetuned.client import Client
from finetuned.client import follow as client_follow
from finetuned.client import transport as client_transport
from finetuned.client.endpoint import Endpoint
from finetuned.client.errors import UnreachableError
from finetuned.domain.errors import InvalidRequestError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b'id: %d\nevent: x\ndata: {"seq": %d}\n\n'


@pytest.fixture
async def client(daemon: FakeDaemon) -> AsyncIterator[Client]:
    async with Client(Endpoint(socket=daemon.socket)) as connected:
        yield connected


async def test_a_program_can_submit_watch_and_cancel(client: Client, daemon: FakeDaemon) -> None:
    assert await client.ready()
    job = await client.submit("sft", {"model": "tiny"}, name="first", max_attempts=2)
    seen = []
    async with aclosing(client.follow(job=job["id"], types=["job.progress"])) as events:
        async for event in events:
            seen.append(event["data"]["current_step"])
            if len(seen) == 3:
                break
    assert seen == [1, 2, 3]
    assert (await client.job(job["id"]))["state"] == "succeeded"
    body = next(body for method, _, body in daemon.requests if method == "POST")
    assert body == {"kind": "sft", "params": {"model": "tiny"}, "name": "first", "max_attempts": 2}


async def test_an_id_cannot_reach_another_route(client: Client, daemon: FakeDaemon) -> None:
    daemon.refusal = (404, {"error": {"code": "not_found", "message": "No."}})
    with pytest.raises(Exception, match="No"):
        await client.job("../tokens?x=1")
    assert daemon.requests[-1][1] == "/v1/jobs/..%2Ftokens%3Fx=1"


async def test_all_jobs_and_all_events_are_walked_page_by_page(client: Client, daemon: FakeDaemon) -> None:
    for number in range(7):
        daemon.jobs[f"job-{number}"] = a_job(f"job-{number}")
    daemon.runs("job-0", steps=9)
    jobs = [job["id"] async for job in client.all_jobs()]
    events = [event["seq"] async for event in client.all_events(job="job-0")]
    assert jobs == [f"job-{number}" for number in range(6, -1, -1)]
    assert events == list(range(1, 15))


async def test_a_refusal_ends_the_following_of_events(client: Client, daemon: FakeDaemon) -> None:
    daemon.refusal = (400, {"error": {"code": "invalid_request", "message": "No such type."}})
    with pytest.raises(InvalidRequestError):
        await anext(client.follow(types=["x"]))


async def test_a_daemon_that_cannot_answer_now_is_asked_again(
    client: Client, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_follow, "FIRST_BACKOFF", 0.01)
    daemon.runs("job-1")
    daemon.refusal = (503, {"error": {"code": "unavailable", "message": "Recovering."}})
    troubles: list[str | None] = []

    def connection(trouble: str | None) -> None:
        troubles.append(trouble)
        if len(troubles) == 3:
            daemon.refusal = (502, "<html>a proxy in between</html>")
        if len(troubles) == 5:
            daemon.refusal = None

    async with aclosing(client.follow(after=7, on_connection=connection)) as events:
        assert (await anext(events))["seq"] == 8
    assert troubles[:3] == ["Recovering."] * 3
    assert troubles[3] is not None
    assert "502" in troubles[3]
    assert troubles[-1] is None


Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def server(path: Path, *answers: bytes) -> AsyncIterator[list[bytes]]:
    """Answers the n-th connection with the n-th bytes and then says nothing; what it was sent."""
    asked: list[bytes] = []
    stop = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answers[min(len(asked), len(answers)) - 1])
        await stop.wait()
        writer.close()

    listening = await asyncio.start_unix_server(respond, str(path))
    async with listening:
        yield asked
        stop.set()


async def test_a_daemon_that_says_nothing_is_given_up_after_the_time_out(directory: Path) -> None:
    async with server(directory / "s", b""), Client(Endpoint(socket=directory / "s")) as client:
        with pytest.raises(UnreachableError, match="did not answer in time"):
            await client._transport.request("GET", "/v1/jobs", timeout=0.05)


async def test_a_stream_without_so_much_as_a_heartbeat_is_taken_for_dead(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_follow, "SILENCE_TIMEOUT", 0.4)
    monkeypatch.setattr(client_follow, "FIRST_BACKOFF", 0.01)
    troubles: list[str | None] = []
    first, second = EVENT % (1, 1), EVENT % (1, 1) + EVENT % (2, 2)
    async with (
        server(directory / "s", HEAD + first, HEAD + second) as asked,
        Client(Endpoint(socket=directory / "s")) as client,
        aclosing(client.follow(on_connection=troubles.append)) as events,
    ):
        assert (await anext(events))["seq"] == 1
        assert (await anext(events))["seq"] == 2
    assert b"Last-Event-ID: 0" in asked[0]
    assert b"Last-Event-ID: 1" in asked[1]
    assert "no sign of life for 0 s" in troubles


async def test_an_event_that_was_cut_in_the_middle_is_not_shown(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_follow, "SILENCE_TIMEOUT", 0.4)
    monkeypatch.setattr(client_follow, "FIRST_BACKOFF", 0.01)
    torn = EVENT % (1, 1) + b'id: 2\nevent: x\ndata: {"se'
    async with (
        server(directory / "s", HEAD + torn, HEAD + EVENT % (2, 2)) as asked,
        Client(Endpoint(socket=directory / "s")) as client,
        aclosing(client.follow()) as events,
    ):
        assert [(await anext(events))["seq"] for _ in range(2)] == [1, 2]
    assert b"Last-Event-ID: 1" in asked[1]


async def test_following_waits_longer_and_longer_but_never_gives_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            raise asyncio.CancelledError

    monkeypatch.setattr(anyio, "sleep", sleep)
    async with Client(Endpoint(socket=directory / "nobody")) as client:
        with pytest.raises(asyncio.CancelledError):
            await anext(client.follow())
    assert max(pauses) <= 1.25 * client_follow.LONGEST_BACKOFF
    assert pauses[0] <= 1.25 * client_follow.FIRST_BACKOFF
    assert pauses[-1] >= 0.75 * client_follow.LONGEST_BACKOFF


async def test_a_transport_can_be_closed_twice(directory: Path) -> None:
    transport = client_transport.Transport(Endpoint(socket=directory / "s"))
    transport.open()
    await transport.close()
    await transport.close()


def later(seconds: int) -> dict[str, Any]:
    """What a response is made of that says when to come again."""
    told = {"code": "too_many_connections", "message": "Later.", "param": None, "type": "server_error"}
    return {"data": {"error": told}, "status": 503, "headers": {"Retry-After": str(seconds)}}


@asynccontextmanager
async def answering(path: Path, answer: Callable[[web.Request], Any]) -> AsyncIterator[Client]:
    """A client of a server that answers everything so."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    async with Client(Endpoint(socket=path)) as client:
        yield client
    await runner.cleanup()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, instead of sleeping."""
    slept: list[float] = []

    async def at_once(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(anyio, "sleep", at_once)
    return slept


async def test_who_follows_events_comes_again_when_the_daemon_says_within_half_a_minute(
    directory: Path, waits: list[float]
) -> None:
    refusals = [7, 3600]

    async def answer(_request: web.Request) -> web.Response:
        if refusals:
            return web.json_response(**later(refusals.pop(0)))
        return web.Response(body=EVENT % (1, 1), content_type="text/event-stream")

    async with answering(directory / "s", answer) as client, aclosing(client.follow()) as events:
        assert (await anext(events))["seq"] == 1
    assert [int(wait) for wait in waits] == [7, 30]


async def test_who_follows_output_comes_again_when_the_daemon_says_and_goes_on_there(
    directory: Path, waits: list[float]
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/logs"):
            return web.json_response({"state": "succeeded", "attempts": []})
        asked.append(request.query.get("after", "the start"))
        if len(asked) == 2:
            return web.json_response(**later(7))
        response = web.StreamResponse(headers={"Output-Position": asked[-1].replace("the start", "1:0")})
        await response.prepare(request)
        if len(asked) < 4:
            await response.write(b"line\n")
        if len(asked) == 1:
            assert request.transport is not None
            request.transport.close()
        return response

    async with answering(directory / "s", answer) as client, aclosing(client.follow_logs("job-1")) as blocks:
        assert b"".join([block async for block in blocks]) == b"line\nline\n"
    assert asked == ["the start", "1:5", "1:5", "1:10"]
    assert waits[-1] == 7
