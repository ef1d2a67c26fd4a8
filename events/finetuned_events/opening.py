"""How a log's file is opened for writing: looked at, made or brought up to date, projections behind it rebuilt.

All of it blocks. SQLite needs a little room even to open a file: a full disk gives up pieces of the reserve.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from finetuned_events import compatibility, connection, rebuild
from finetuned_events import seals as sealing
from finetuned_events.committer import Committer
from finetuned_events.errors import ReadOnlyError
from finetuned_events.projection import Model, Projection, S
from finetuned_events.rebuild import Scratch
from finetuned_events.reserve import Reserve, WalIndexRoom, give_piece
from finetuned_events.sql import QUERIES
from finetuned_events.upcast import Upcasters

__all__ = ("look", "open_committer")

T = TypeVar("T")

#: what SQLite says of a file that it cannot make or make longer
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})


def look(path: Path, known: Mapping[str, int] | None, read_only: bool) -> ReadOnlyError | None:
    """Return why nothing may be appended to the file, None if it may; raises NotALogError."""
    return _with_room(
        lambda: compatibility.check(path, known, read_only),
        partial(give_piece, path) if not read_only else bool,
    )


def open_committer(
    path: Path,
    stack: ExitStack,
    *,
    model: Model[S],
    projections: Sequence[Projection[S]],
    upcasters: Upcasters,
    known: Mapping[str, int] | None,
    clock: Callable[[], int],
    factory: type[sqlite3.Connection],
    reserve: int,
) -> Committer[S]:
    """Return the writing side of the file, which the caller has locked; the stack takes what must be closed last."""
    kept = Reserve(path, reserve)
    written = _with_room(partial(connection.connect_writer, path, factory), kept.give)
    try:
        stack.callback(WalIndexRoom(path).close)
        head = written.execute(QUERIES["fetch_head"]).fetchone()
        if rebuild.outdated(written, projections, head[0] if head else 0):
            with closing(Scratch(model, projections, upcasters, path.parent / sealing.ARCHIVES)) as scratch:
                scratch.swap(written)

        return Committer(
            written,
            model=model,
            projections=projections,
            upcasters=upcasters,
            known=known,
            clock=clock,
            reserve=kept,
        )
    except BaseException:
        written.close()
        raise


def _with_room(run: Callable[[], T], give: Callable[[], bool]) -> T:
    """Open something, with room out of the reserve if there is no other left."""
    while True:
        try:
            return run()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _NO_ROOM or not give():
                raise
