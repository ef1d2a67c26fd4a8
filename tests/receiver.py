"""A receiver of webhooks on the loopback interface, which keeps what came and answers as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import orjson
from aiohttp import web
from standardwebhooks import Webhook


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it arrived."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Its id."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        """What it says."""
        return orjson.loads(self.body)

    def verified(self, secret: str) -> Any:
        """What it says, if the official package finds the signature good."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass(slots=True, eq=False)
class Receiver:
    """``answer`` makes the answer to each message; ``url`` is where it listens."""

    answer: Callable[[Received], web.Response] = field(default=lambda _received: web.Response())
    silent: bool = False  # it never answers
    url: str = ""
    received: list[Received] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)

    async def wait(self, count: int) -> list[Received]:
        """All messages, once there are so many."""
        with anyio.fail_after(60):
            while len(self.received) < count:
                await self.news.wait()
        return self.received

    async def take(self, request: web.Request) -> web.StreamResponse:
        """One message."""
        received = Received({k.lower(): v for k, v in request.headers.items()}, await request.read())
        self.received.append(received)
        self.news.set()
        self.news = anyio.Event()
        if self.silent:
            await anyio.sleep_forever()
        return self.answer(received)


@asynccontextmanager
async def receiving(**settings: Any) -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver(**settings)
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()
