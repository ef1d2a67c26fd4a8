"""Whether this program may write to a file: it must know its format and every kind of event in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from finetuned_events import connection
from finetuned_events.errors import NewerSchemaError, NotALogError
from finetuned_events.sql import QUERIES

__all__ = ("check",)


def check(path: Path, known: Mapping[str, int] | None, must_exist: bool) -> NewerSchemaError | None:
    """Return why the file is beyond this program; None if it is not, or not there yet."""
    if not path.exists() or not path.stat().st_size:
        _refuse_absent(path, must_exist)
        return None

    if not must_exist and path.with_name(f"{path.name}-journal").exists():
        _roll_back(path)
    with closing(connection.connect_reader(path)) as read:
        version = connection.stored_format(read, path)
        if not version:  # whoever made the file was killed before its tables were there
            _refuse_absent(path, must_exist)
            return None
        if version > connection.FORMAT:
            return NewerSchemaError(
                f"{path} has format {version}, this version understands {connection.FORMAT}: it is open read-only, "
                "upgrade to append to it."
            )

        unknown = sorted(
            f"{kind} {schema}"
            for kind, schema in read.execute(QUERIES["fetch_kinds"])
            if known is not None and schema > known.get(kind, 0)
        )
        if not unknown:
            return None

        return NewerSchemaError(
            f"{path} holds events that this version does not know ({', '.join(unknown)}): it is open read-only, "
            "upgrade or enable the part that wrote them to append to it."
        )


def _refuse_absent(path: Path, must_exist: bool) -> None:
    if must_exist:
        raise NotALogError(f"There is no event log at {path}: name another path.")


def _roll_back(path: Path) -> None:
    """Let SQLite undo what was cut off while the file was being made; one who may only read cannot.

    Later there is a WAL, and never a journal.
    """
    with closing(sqlite3.connect(path)) as made:
        made.execute("SELECT count(*) FROM sqlite_schema")
