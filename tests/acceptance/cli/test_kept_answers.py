"""An answer that the client has already is not sent again: ETag and If-None-Match."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from finetuned.client import Client
from finetuned.client import transport as client_transport
from finetuned.client.endpoint import Endpoint


class Tagged:
    """A server whose answers carry an ETag that the test sets."""

    def __init__(self) -> None:
        self.tag = "one"
        self.known: list[str | None] = []  # If-None-Match of each request
        self.sent = 0  # bodies

    async def answer(self, request: web.Request) -> web.Response:
        known = request.headers.get("If-None-Match")
        self.known.append(known)
        headers = {"ETag": f'"{self.tag}"'}
        if known == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        self.sent += 1
        return web.json_response({"id": request.path.rsplit("/", 1)[1], "tag": self.tag}, headers=headers)


@pytest.fixture
async def server(directory: Path) -> AsyncIterator[Tagged]:
    tagged = Tagged()
    app = web.Application()
    app.router.add_get("/{path:.*}", tagged.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.UnixSite(runner, str(directory / "s")).start()
    yield tagged
    await runner.cleanup()


@pytest.fixture
async def client(server: Tagged, directory: Path) -> AsyncIterator[Client]:
    async with Client(Endpoint(socket=directory / "s")) as connected:
        yield connected


async def test_what_has_not_changed_is_not_sent_again(server: Tagged, client: Client) -> None:
    first, second = await client.job("a"), await client.job("a")
    assert first == second
    assert server.known == [None, '"one"']
    assert server.sent == 1


async def test_what_has_changed_is(server: Tagged, client: Client) -> None:
    await client.job("a")
    server.tag = "two"
    job = dict(await client.job("a"))
    assert job["tag"] == "two"
    assert dict(await client.job("a")) == job
    assert server.sent == 2


async def test_who_changes_an_answer_does_not_change_the_next(client: Client) -> None:
    (await client.job("a"))["id"] = "changed"
    assert (await client.job("a"))["id"] == "a"


async def test_another_path_is_another_answer(server: Tagged, client: Client) -> None:
    await client.job("a")
    assert (await client.job("b"))["id"] == "b"
    assert server.known == [None, None]


async def test_only_so_many_answers_are_kept(
    server: Tagged, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_transport, "KEPT_ANSWERS", 2)
    for name in ("a", "b", "c", "a"):
        await client.job(name)
    assert server.known == [None] * 4
    await client.job("c")
    assert server.known[-1] == '"one"'


async def test_a_large_answer_is_not_kept(
    server: Tagged, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_transport, "LARGEST_KEPT", 4)
    for _ in range(2):
        await client.job("a")
    assert server.known == [None, None]
