"""What tracing puts into the daemon, and the way to have it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import anyio.to_thread
from aiohttp.typedefs import Middleware

from finetuned import followers
from finetuned.config import Config
from finetuned.domain.errors import ConfigError
from finetuned.followers import Follower
from finetuned.patience import patiently
from finetuned.queries.door import Queries
from finetuned.store import Log
from finetuned_events import EventLog


@dataclass(frozen=True, slots=True)
class Traces:
    """A class of log that is to be opened, middlewares for the API, and what makes a follower that traces jobs."""

    log: type[Log] = EventLog
    middlewares: Sequence[Middleware] = ()
    jobs: Callable[[Queries], Follower] | None = None

    async def follow(self, events: Log, queries: Queries) -> None:
        """Trace jobs as they end, until cancelled; returns at once when tracing is off."""
        if self.jobs is None:
            return
        follower = self.jobs(queries)
        head = events.head
        if not await patiently(follower.name, partial(events.position, follower.name)):
            # Tracing is new here: what ended before is history.
            await patiently(
                follower.name, lambda: events.execute(lambda _world: (), cursor=(follower.name, head))
            )
        await followers.follow(events, follower)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Traces]:
    """Tracing as it is configured. What was traced by the end of the block is sent, for some seconds at most.

    Raises ``ConfigError`` if it is asked for and OpenTelemetry is not installed.
    """
    if not config.otel_endpoint:
        yield Traces()
        return
    try:
        from finetuned.tracing import sdk  # noqa: PLC0415 - an extra, and 60 ms of the start
    except ImportError as error:
        raise ConfigError(
            f"otel_endpoint is set and OpenTelemetry is not installed ({error.name} is missing); install "
            "`finetuned[otel]`, or remove otel_endpoint.",
            param="otel_endpoint",
        ) from None
    tracing = await anyio.to_thread.run_sync(
        partial(sdk.set_up, config.otel_endpoint, sample_ratio=config.otel_sample_ratio)
    )
    try:
        yield tracing.traces
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(tracing.close)
