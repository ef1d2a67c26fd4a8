"""Rows to events and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from finetuned_events.errors import InvalidEventError
from finetuned_events.event import Event, make
from finetuned_events.sql import QUERIES
from finetuned_events.upcast import Upcasters

__all__ = ("END", "MAX_DATA_BYTES", "MAX_DEPTH", "decode", "encode", "pages")

MAX_DATA_BYTES = 1 << 20
"""Largest event: figures and names belong here, rows and texts in files."""

MAX_DEPTH = 100
"""Levels of nesting of an event. Parsers give up at some depth, above all those that read projections back."""

END = 2**63 - 2
"""Beyond any position."""

_ORJSON_DEPTH = 254  # levels that orjson writes
_PAGE = 1000  # events a transaction when the whole log is read


def encode(data: Mapping[str, Any]) -> bytes:
    """Return the data as JSON; raises InvalidEventError for what JSON cannot hold."""
    try:
        encoded = orjson.dumps(data)
    except TypeError as error:
        raise InvalidEventError(f"Event data cannot be written as JSON: {error}.") from error

    if len(encoded) > MAX_DATA_BYTES:
        raise InvalidEventError(
            f"Event data has {len(encoded)} bytes, {MAX_DATA_BYTES} are allowed: keep the content in a file."
        )

    if encoded[:1] != b"{":
        raise InvalidEventError("Event data must be a mapping.")

    if encoded.count(b"{") + encoded.count(b"[") > MAX_DEPTH and _is_deeper(data, MAX_DEPTH):
        raise InvalidEventError(f"Event data is nested deeper than {MAX_DEPTH} levels: make it flatter.")

    return encoded


def _is_deeper(data: Any, levels: int) -> bool:
    """Whether the data have more levels: then, with enough around them, they have too many for orjson."""
    for _ in range(_ORJSON_DEPTH - levels):
        data = [data]
    try:
        orjson.dumps(data)
    except TypeError:
        return True
    return False


def decode(row: Sequence[Any], upcasters: Upcasters) -> Event:
    """Return the event in a row of `select_events`, its data in the newest shape."""
    seq, stream, version, kind, schema, at, actor, cause, data = row
    content = orjson.loads(data)
    if upcasters:
        schema, content = upcasters.upcast(kind, schema, content)

    return make(seq, stream, version, kind, schema, at, actor, cause, content)


def pages(
    connection: sqlite3.Connection, upcasters: Upcasters, *, after: int = 0, upto: int = END
) -> Iterator[list[Event]]:
    """Yield all events beyond `after`, up to `upto`, in pages, each read in a short transaction of its own."""
    query = f"{QUERIES['select_events']} WHERE {QUERIES['where_range']} ORDER BY seq LIMIT ?"
    while rows := connection.execute(query, (after, upto + 1, _PAGE)).fetchall():
        events = [decode(row, upcasters) for row in rows]
        yield events
        after = events[-1].seq
