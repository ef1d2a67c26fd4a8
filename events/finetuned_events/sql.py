"""SQL lives in .sql files: named stanzas of `queries.sql`, and scripts split into statements."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from importlib import resources

__all__ = ("QUERIES", "SCHEMA", "SEALS", "named", "statements")

_HEADING = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n?", re.MULTILINE)


def named(text: str) -> dict[str, str]:
    """Return the statements of `text` by the name in the `-- name --` line above each."""
    parts = _HEADING.split(text)
    return {name: _COMMENT.sub("", body).strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def statements(script: str) -> Iterator[str]:
    """Yield the script's statements one by one (`executescript` would commit the transaction around it)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""

    if _COMMENT.sub("", pending).strip():
        yield pending.strip()


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


QUERIES = named(_text("queries.sql"))
SCHEMA = _text("schema.sql")
SEALS = _text("seals.sql")
