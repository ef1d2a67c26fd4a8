"""The client reaches every route of the daemon, and no other."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest
from aiohttp import web
from typing_extensions import is_typeddict

from finetuned.api.routes import OPEN_ROUTES, ROUTES
from finetuned.client import Client
from finetuned.client.endpoint import Endpoint
from finetuned.domain.errors import FinetunedError

#: Routes that are for browsers and code generators.
NOT_FOR_CLIENTS = {("GET", "/docs"), ("GET", "/openapi.json")}

#: What ours has in a form of its own (jobs, files of any length), so that only OpenAI's client comes this way.
OPENAIS = re.compile(r"/v1/(fine_tuning|uploads|completions|embeddings)\b")

#: As much of every answer as a method looks at.
ANSWER = {
    "data": [], "has_more": False, "next_after": None, "files": [], "state": "succeeded", "attempts": [],
    "versions": [{"version": "x", "bytes": 2, "format": "jsonl"}], "version": "x",
}  # fmt: skip


@pytest.fixture
async def reached(directory: Path) -> AsyncIterator[set[tuple[str, str]]]:
    """The method and path of each request to a server that answers anything."""
    asked: set[tuple[str, str]] = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.add((request.method, request.path))
        headers = {"ETag": '"x"', "Output-Position": "1:0"}
        if "text/event-stream" in request.headers.get("Accept", ""):
            event = b'id: 1\nevent: x\ndata: {"seq": 1}\n\n'
            return web.Response(body=event, content_type="text/event-stream")
        return web.Response(body=json.dumps(ANSWER), headers=headers, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.UnixSite(runner, str(directory / "s")).start()
    yield asked
    await runner.cleanup()


def value(name: str, kind: Any, folder: Path) -> Any:
    """Something to call a method with."""
    if kind is Path:
        return folder / name if name == "file" else folder / f"{name}.new"
    if is_typeddict(kind):
        return {"path": "sub/x", "bytes": 2, "crc32": 0}
    if kind is str or kind == (str | None):
        return "x"
    if get_origin(kind) in {Mapping, Collection}:
        return {}
    if get_origin(kind) is Sequence:
        return []
    raise AssertionError(f"the test knows no value for {name}: {kind}")


async def call(method: Callable[..., Any], folder: Path) -> None:
    """Call a method with what it must have; what it makes of the answer does not matter."""
    hints = get_type_hints(method)
    arguments = {
        name: value(name, hints[name], folder)
        for name, each in inspect.signature(method).parameters.items()
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    }
    try:
        if inspect.isasyncgenfunction(method):
            async for _ in method(**arguments):
                break
        else:
            await method(**arguments)
    except (FinetunedError, KeyError, IndexError):
        return


async def test_the_client_reaches_every_route_and_no_other(
    reached: set[tuple[str, str]], directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("{}")
    async with Client(Endpoint(socket=directory / "s")) as client:
        for name, method in inspect.getmembers(client, inspect.ismethod):
            if not name.startswith("_"):
                await call(method, tmp_path)
        await client.events(job="x")
    listed = [(each.method, each.path) for each in ROUTES] + [
        (each.method, each.path) for each in OPEN_ROUTES
    ]
    table = {each for each in listed if each not in NOT_FOR_CLIENTS and not OPENAIS.match(each[1])}
    patterns = {
        key: re.compile(re.sub(r"\{(\w+)(:[^}]*)?\}", r"[^/]+(?:/x)?", key[1]) + "$") for key in table
    }
    found = {
        key
        for method, path in reached
        for key, pattern in patterns.items()
        if key[0] == method.replace("HEAD", "GET") and pattern.match(path)
    }
    assert sorted(table - found) == []
    unknown = {
        (method, path)
        for method, path in reached
        if not any(key[0] == method.replace("HEAD", "GET") and p.match(path) for key, p in patterns.items())
    }
    assert unknown == set()
