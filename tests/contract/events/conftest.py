"""A small model that counts events per stream, and the two logs that must behave alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from finetuned_events import Event, EventLog, MemoryLog

Opener = Callable[..., AbstractAsyncContextManager[EventLog[Any]]]


class Counts:
    """Events and the last value by stream; look-ups of streams not in memory go to the projected rows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.streams: dict[str, tuple[int, Any]] = {}
        self.commits = 0

    def count(self, stream: str) -> int:
        if stream not in self.streams:
            row = self._connection.execute("SELECT count FROM counts WHERE stream = ?", (stream,)).fetchone()
            return 0 if row is None else int(row[0])

        return self.streams[stream][0]

    def apply(self, event: Event) -> None:
        if event.data.get("state") == "broken":
            raise ValueError("the state refuses this event")

        self.streams[event.stream] = (self.count(event.stream) + 1, event.data.get("value"))

    def committed(self) -> None:
        self.commits += 1
        self.streams.clear()


class CountsModel:
    def __init__(self) -> None:
        self.loaded: list[Counts] = []

    def initial(self, connection: sqlite3.Connection) -> Counts:
        return Counts(connection)

    def load(self, connection: sqlite3.Connection) -> Counts:
        self.loaded.append(Counts(connection))
        return self.loaded[-1]


class CountsProjection:
    name = "counts"
    version = 1
    schema = (
        "CREATE TABLE counts (stream TEXT PRIMARY KEY, count INTEGER NOT NULL, value) STRICT, WITHOUT ROWID;"
    )
    tables: tuple[str, ...] = ("counts",)

    def __init__(self) -> None:
        # STRICT tables need a type for each column; `value` holds JSON of any kind.
        self.schema = self.schema.replace("value)", "value ANY)")

    def write(self, connection: sqlite3.Connection, state: Counts, events: Sequence[Event]) -> None:
        if any(event.data.get("projection") == "broken" for event in events):
            raise ValueError("the projection refuses this event")

        streams = {event.stream for event in events}
        connection.executemany(
            "INSERT INTO counts VALUES (?, ?, ?) "
            "ON CONFLICT (stream) DO UPDATE SET count = excluded.count, value = excluded.value",
            [
                (stream, state.streams[stream][0], repr(state.streams[stream][1]))
                for stream in sorted(streams)
            ],
        )


@pytest.fixture(autouse=True)
def not_blocked(no_blocking: None) -> None:
    """Nothing of the log blocks the event loop, but what has no file and works at once."""


@pytest.fixture
def counts() -> dict[str, Any]:
    """The arguments that make a log count."""
    return {"model": CountsModel(), "projections": [CountsProjection()]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture(params=["file", "memory"])
def opener(request: pytest.FixtureRequest, path: Path) -> Opener:
    """Opens the log with a file and the one without."""
    return partial(EventLog.open, path) if request.param == "file" else MemoryLog.open
