from __future__ import annotations

import itertools
import sqlite3
from typing import Any

import pytest

from finetuned_events.connection import create
from finetuned_events.reader import select
from finetuned_events.sql import QUERIES, named, statements


def test_stanzas_are_found_by_name_without_their_comments() -> None:
    text = "-- one --\n-- what it does\nSELECT 1\n\n-- two --\nSELECT\n-- inside\n2\n"
    assert named(text) == {"one": "SELECT 1", "two": "SELECT\n2"}


def test_a_script_is_split_as_sqlite_would() -> None:
    script = (
        "-- a comment; with a semicolon\nCREATE TABLE a (x TEXT DEFAULT ';');\n"
        "CREATE TRIGGER t BEFORE DELETE ON a\nBEGIN\n  SELECT 1;\n  SELECT 2;\nEND;\n\n-- the end\n"
    )
    found = list(statements(script))
    assert len(found) == 2
    assert found[1].endswith("END;")
    assert list(statements("SELECT 1")) == ["SELECT 1"]


@pytest.mark.parametrize(
    "name",
    [name for name, query in QUERIES.items() if query.startswith(("SELECT", "INSERT INTO k", "UPDATE"))],
)
def test_every_query_fits_the_schema(name: str) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create(connection)
    query = QUERIES[name]
    connection.execute(f"EXPLAIN {query}", [None] * query.count("?"))
    connection.close()


def test_a_page_of_a_stream_comes_from_the_index() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create(connection)
    query, parameters = page_of_stream(after=0)
    plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters).fetchall()
    connection.close()
    assert plan[0][3] == "SEARCH events USING INDEX events_by_stream (stream=? AND version>?)"


def page_of_stream(after: int) -> tuple[str, list[Any]]:
    return select(
        after=after, before=None, limit=5, stream="job/2", stream_prefix=None, types=None, descending=False
    )


def test_a_late_page_of_a_stream_costs_what_an_early_one_does() -> None:
    """Counted in instructions of SQLite's machine, over a stream that shares its log with another."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create(connection)
    connection.executemany("INSERT INTO streams VALUES (?, ?)", [(1, "job/1"), (2, "job/2")])
    rows = [(seq, 1 + seq % 2, (seq + 1) // 2) for seq in range(1, 20_001)]
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, 't', 1, 0, 'a', NULL, '{}', x'')", rows)
    costs = []
    for after in (10, 11, 10_000, 19_980):
        steps = itertools.count()
        connection.set_progress_handler(lambda steps=steps: next(steps) < 0, 1)  # type: ignore[misc]
        found = connection.execute(*page_of_stream(after)).fetchall()
        connection.set_progress_handler(None, 0)
        assert [row[0] for row in found] == [seq for seq in range(after + 1, after + 11) if seq % 2]
        costs.append(next(steps))
    connection.close()
    assert max(costs) < 2 * min(costs), costs
