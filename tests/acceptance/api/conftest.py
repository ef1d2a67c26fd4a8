"""The real application on a real Unix socket and TCP port over a real log; nothing runs the jobs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from finetuned.testing import House, serve_house

Open = Callable[..., AbstractAsyncContextManager[House]]
OpenClient = Callable[[House], aiohttp.ClientSession]
Until = Callable[[Callable[[], object]], Any]


@pytest.fixture(autouse=True)
def not_blocked(no_blocking: None) -> None:
    """Nothing of the daemon blocks the event loop."""


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A directory whose name is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="ft-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def open_house(state_dir: Path) -> Open:
    """Serves a daemon with the given settings."""
    return lambda **settings: serve_house(state_dir, **{"sse_coalesce_s": 0.005, **settings})


@pytest.fixture
def open_client() -> OpenClient:
    """Makes a client on the Unix socket."""

    def opened(house: House) -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(str(house.addresses.socket), limit=0)
        return aiohttp.ClientSession("http://finetuned", connector=connector)

    return opened


@pytest.fixture(name="house")
async def served_house(open_house: Open) -> AsyncIterator[House]:
    # In a task of its own: pytest-asyncio begins and ends a fixture in different tasks, which no task group bears.
    opened: asyncio.Queue[House] = asyncio.Queue()
    done = asyncio.Event()

    async def live() -> None:
        async with open_house() as house:
            opened.put_nowait(house)
            await done.wait()

    living = asyncio.create_task(live())
    waiting = asyncio.create_task(opened.get())
    await asyncio.wait((living, waiting), return_when=asyncio.FIRST_COMPLETED)
    if living.done():
        waiting.cancel()
        await living
    yield await waiting
    done.set()
    await living


@pytest.fixture
async def client(house: House, open_client: OpenClient) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(house) as session:
        yield session


@pytest.fixture
def until() -> Until:
    """Looks again and again until a condition holds that others bring about."""

    async def look(condition: Callable[[], object]) -> None:
        with anyio.fail_after(20):
            while not condition():  # noqa: ASYNC110 - no event comes from there
                await anyio.sleep(0.01)

    return look
