"""Reading: queries put together from named stanzas, and a pool of connections that cannot write.

Each query is fetched whole in one go. A cursor left half-read would keep its read transaction open and with it
the WAL from being emptied.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import aiosqlite
import orjson

from finetuned_events import connection
from finetuned_events.errors import LogError, LogFullError, LogReadError, is_full
from finetuned_events.sql import QUERIES

__all__ = ("InlineReader", "PoolReader", "Reader", "failure", "select")

_END = 2**63 - 1


def select(
    *,
    after: int,
    before: int | None,
    limit: int,
    stream: str | None,
    stream_prefix: str | None,
    types: Collection[str] | None,
    descending: bool,
) -> tuple[str, list[Any]]:
    """Return the query for a page of events, and its parameters."""
    end = _END if before is None else before
    conditions: list[str] = []
    parameters: list[Any] = []
    if stream is not None:
        conditions.append(QUERIES["where_range_of_stream"])  # first: its parameters are numbered
        parameters += [stream, after, end]
    else:
        conditions.append(QUERIES["where_range"])
        parameters += [after, end]
    if stream_prefix:
        conditions.append(QUERIES["where_prefix"])
        parameters += [stream_prefix, stream_prefix + "\U0010ffff"]
    if types is not None:
        conditions.append(QUERIES["where_types"])
        parameters.append(orjson.dumps(sorted(types)).decode())

    # Within a stream the order of versions is that of positions, and has an index.
    base, order = ("select_events", "seq") if stream is None else ("select_events_of_stream", "version")
    direction = "DESC" if descending else "ASC"
    query = f"{QUERIES[base]} WHERE {' AND '.join(conditions)} ORDER BY {order} {direction} LIMIT ?"
    return query, [*parameters, limit]


class Reader(Protocol):
    """What the log needs of a reader. `fetch` raises LogReadError."""

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...
    async def aclose(self) -> None: ...


class PoolReader:
    """A few connections, each with its thread; who asks while all are busy waits for one."""

    def __init__(self) -> None:
        self._connections: list[aiosqlite.Connection] = []
        self._free: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()

    async def open(self, path: Path, size: int) -> None:
        """Open `size` connections on the file."""
        for _ in range(size):
            opened = await aiosqlite.connect(connection.reader_uri(path), uri=True, isolation_level=None)
            self._connections.append(opened)
            await opened.execute_fetchall("PRAGMA query_only = ON")
            self._free.put_nowait(opened)

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one query."""
        # A caller who is cancelled gives the connection back at once: its thread ends the query first anyway.
        taken = await self._free.get()
        try:
            return list(await taken.execute_fetchall(sql, parameters))  # type: ignore[arg-type] # rows are tuples
        except sqlite3.Error as error:
            raise failure(error) from error
        finally:
            self._free.put_nowait(taken)

    async def aclose(self) -> None:
        """Close the connections, each after the query it is at."""
        for opened in self._connections:
            await opened.close()


class InlineReader:
    """Reads at once on a connection that it is given."""

    def __init__(self, shared: sqlite3.Connection) -> None:
        self._shared = shared

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one query; refuses to write like the pool does."""
        self._shared.execute("PRAGMA query_only = ON")
        try:
            return self._shared.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise failure(error) from error
        finally:
            self._shared.execute("PRAGMA query_only = OFF")

    async def aclose(self) -> None:
        """Nothing of its own to close."""


def failure(error: sqlite3.Error) -> LogError:
    """What is said of a query that failed for this."""
    if is_full(error):  # what is read is gathered or sorted there
        return LogFullError(
            "There is no room for temporary tables: free some space, or let SQLITE_TMPDIR name another place, and try again."
        )
    return LogReadError(f"The query failed: {error}. If it is not the query, check the disk.")
