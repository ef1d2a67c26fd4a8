"""A program to be killed: appends in batches and tells each acknowledged position through a pipe."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetuned_events import Event, EventLog, NewEvent

WRITERS = 8


class Counts:
    """State, model and projection: how many events each stream has, and the sum of their values."""

    name = "counts"
    version = 1
    schema = "CREATE TABLE counts (stream TEXT PRIMARY KEY, count INTEGER, total INTEGER) WITHOUT ROWID;"
    tables = ("counts",)

    def __init__(self, rows: dict[str, tuple[int, int]] | None = None) -> None:
        self.rows = rows or {}

    def initial(self, connection: sqlite3.Connection) -> Counts:
        return Counts()

    def load(self, connection: sqlite3.Connection) -> Counts:
        rows = connection.execute("SELECT * FROM counts")
        return Counts({stream: (count, total) for stream, count, total in rows})

    def apply(self, event: Event) -> None:
        count, total = self.rows.get(event.stream, (0, 0))
        self.rows[event.stream] = (count + 1, total + event.data["value"])

    def committed(self) -> None:
        """Small enough to keep."""

    def write(self, connection: sqlite3.Connection, state: Counts, events: Sequence[Event]) -> None:
        connection.executemany(
            "REPLACE INTO counts VALUES (?, ?, ?)",
            [(stream, *state.rows[stream]) for stream in {event.stream for event in events}],
        )


def open_log(path: Path) -> Any:
    return EventLog.open(path, model=Counts(), projections=[Counts()])


async def append_until_killed(path: Path, acknowledge: int) -> None:
    """Append as fast as possible; after each acknowledgement write its last position to the pipe."""
    async with open_log(path) as log:

        async def append(writer: int) -> None:
            step = 0
            while True:
                step += 1
                cursor = (
                    (f"writer/{writer}", await log.position(f"writer/{writer}") + 1)
                    if step % 7 == 0
                    else None
                )
                new = [
                    NewEvent(f"job/{writer}", "noted", {"value": step + more}) for more in range(1 + step % 3)
                ]
                events = await log.execute(lambda _, new=new: new, cursor=cursor)
                os.write(acknowledge, struct.pack("<qq", events[-1].seq, events[-1].data["value"]))

        await asyncio.gather(*(append(writer) for writer in range(WRITERS)))


def main() -> None:
    """The zygote: everything is imported once, then each line on stdin (a path) forks a child that appends.

    Answers with the child's pid; acknowledgements go to the inherited descriptor 3. The tester kills it.
    """
    while line := os.read(0, 4096):
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(append_until_killed(Path(line.decode().strip()), 3))
            finally:
                os._exit(1)

        os.write(1, struct.pack("<q", pid))
        os.waitpid(pid, 0)
        os.write(1, struct.pack("<q", 0))


if __name__ == "__main__":
    main()
