"""What appends is sent with a key, and again when the daemon goes away: it is done once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from finetuned.client import Client
from finetuned.client import transport as client_transport
from finetuned.client.endpoint import Endpoint
from finetuned.client.errors import UnreachableError
from finetuned.domain.errors import InvalidRequestError, UnavailableError

Trouble = list[str | None]


class Fickle:
    """A server that carries a submission out, and answers only the n-th time."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.keys: list[str | None] = []
        self.bodies: list[bytes] = []
        self.lost_answers = 0  # how many requests are carried out and then cut
        self.refusals: list[int] = []  # the status of each of the next requests
        self.retry_after: str | None = None  # what refusals say of when to come again
        self.away = False  # whether it stops listening after the first lost answer
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self.socket.unlink(missing_ok=True)

    async def _answer(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Idempotency-Key"))
        self.bodies.append(await request.read())
        if self.refusals:
            status = self.refusals.pop(0)
            told = {"code": "c", "message": "Not now.", "param": None, "type": "t"}
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return web.json_response({"error": told}, status=status, headers=headers)
        if self.lost_answers:
            self.lost_answers -= 1
            assert request.transport is not None
            if self.away:
                self.socket.unlink()
            request.transport.abort()
        return web.json_response({"id": "job-1"}, status=201)


@pytest.fixture
async def server(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fickle]:
    monkeypatch.setattr(client_transport, "FIRST_PAUSE", 0.001)
    fickle = Fickle(directory / "s")
    await fickle.start()
    yield fickle
    await fickle.stop()


@pytest.fixture
def troubles() -> Trouble:
    return []


@pytest.fixture
async def client(server: Fickle, troubles: Trouble) -> AsyncIterator[Client]:
    async with Client(Endpoint(socket=server.socket), on_connection=troubles.append) as connected:
        yield connected


async def test_a_submission_whose_answer_was_lost_is_repeated_with_the_same_key(
    server: Fickle, client: Client, troubles: Trouble
) -> None:
    server.lost_answers = 2
    assert (await client.submit("sft", {}))["id"] == "job-1"
    assert len(server.keys) == 3
    assert len(set(server.keys)) == 1
    assert server.keys[0] is not None
    assert len(server.keys[0]) == 36
    assert [trouble is None for trouble in troubles] == [False, False, True]


async def test_an_upload_whose_answer_was_lost_is_sent_again_from_its_first_byte(
    server: Fickle, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    content = b'{"text": "a"}\n' * 300_000
    await anyio.Path(file).write_bytes(content)
    server.lost_answers = 1
    counted: list[int] = []
    await client.upload_dataset("rows", file, on_bytes=counted.append)
    assert server.bodies == [content, content]
    assert len(set(server.keys)) == 1
    assert sum(counted) == len(content)


async def test_two_submissions_have_different_keys(server: Fickle, client: Client) -> None:
    await client.submit("sft", {})
    await client.submit("sft", {})
    assert len(set(server.keys)) == 2


async def test_a_daemon_that_cannot_take_it_now_is_asked_again(server: Fickle, client: Client) -> None:
    server.refusals = [503, 503]
    assert (await client.cancel("job-1"))["id"] == "job-1"
    assert len(server.keys) == 3


async def test_any_other_refusal_is_final(server: Fickle, client: Client) -> None:
    server.refusals = [400]
    with pytest.raises(InvalidRequestError):
        await client.submit("sft", {})
    assert len(server.keys) == 1


async def test_a_daemon_that_was_there_and_went_away_is_waited_for(server: Fickle, directory: Path) -> None:
    troubles: Trouble = []
    elsewhere = directory / "away"

    def come_back(trouble: str | None) -> None:
        troubles.append(trouble)
        if len(troubles) == 3:
            elsewhere.rename(server.socket)

    async with Client(Endpoint(socket=server.socket), on_connection=come_back) as client:
        await client.job("job-1")  # the daemon is known from here on
        await client._transport.close()  # no kept connection that would still reach it
        client._transport.open()
        server.socket.rename(elsewhere)
        assert (await client.submit("sft", {}))["id"] == "job-1"
    assert [trouble is None for trouble in troubles] == [False, False, False, True]
    assert "No daemon answers" in str(troubles[0])


async def test_a_daemon_that_was_never_there_is_not_waited_for(directory: Path, troubles: Trouble) -> None:
    endpoints = (Endpoint(socket=directory / "none"), Endpoint(url=f"http://127.0.0.1:{unused_port()}"))
    for endpoint in endpoints:
        async with Client(endpoint, on_connection=troubles.append) as client:
            with pytest.raises(UnreachableError, match="No daemon answers"):
                await client.submit("sft", {})
    assert troubles == []


async def test_patience_has_an_end_and_the_error_says_what_is_not_known(
    server: Fickle, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_transport, "PATIENCE", 0.01)
    server.lost_answers = 1000
    with pytest.raises(UnreachableError, match="Whether it was done is not known"):
        await client.submit("sft", {})
    server.lost_answers, server.refusals = 0, [503] * 1000
    with pytest.raises(UnavailableError):
        await client.submit("sft", {})


async def test_what_has_no_key_is_not_repeated(server: Fickle, client: Client) -> None:
    server.lost_answers = 1
    with pytest.raises(UnreachableError, match="not known"):
        await client.verify_log()
    assert server.keys == [None]


async def test_a_secret_that_cannot_be_shown_twice_is_not_asked_for_twice(
    server: Fickle, client: Client
) -> None:
    server.lost_answers = 1
    with pytest.raises(UnreachableError):
        await client.create_token(scope="read")
    assert server.keys == [None]


async def test_what_is_put_is_put_again_when_the_answer_was_lost(server: Fickle, client: Client) -> None:
    server.lost_answers = 1
    await client.save_template("nightly", {"kind": "sft"})
    server.lost_answers = 1
    await client.set_secret("hf", "12345678")
    assert len(server.bodies) == 4
    assert server.bodies[0] == server.bodies[1]
    assert server.bodies[2] == server.bodies[3] == b'{"value": "12345678"}'


@pytest.mark.parametrize("status", [429, 503])
async def test_who_is_told_when_to_come_again_does_whatever_was_asked(
    server: Fickle, client: Client, troubles: Trouble, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def at_once(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(anyio, "sleep", at_once)
    server.refusals, server.retry_after = [status, status], "7"
    assert (await client.job("job-1"))["id"] == "job-1"
    assert waits == [7, 7]
    assert troubles == ["Not now.", "Not now.", None]


async def test_what_is_not_to_be_had_within_patience_is_not_asked_for_again(
    server: Fickle, client: Client
) -> None:
    server.refusals, server.retry_after = [503, 503], "60"
    with pytest.raises(UnavailableError, match="Not now"):
        await client.submit("sft", {})
    assert len(server.keys) == 1


@pytest.mark.parametrize("retry_after", ["3600", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "x"])
async def test_nobody_waits_longer_than_patience_lasts_or_for_what_is_no_number(
    server: Fickle, client: Client, retry_after: str
) -> None:
    server.refusals, server.retry_after = [503], retry_after
    with pytest.raises(UnavailableError, match="Not now"):
        await client.job("job-1")
    assert len(server.keys) == 1
