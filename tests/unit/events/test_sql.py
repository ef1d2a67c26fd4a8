from __future__ import annotations

import sqlite3

import pytest

from finetuned_events.connection import create
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
    query = (
        f"{QUERIES['select_events_of_stream']} WHERE {QUERIES['where_range']} AND {QUERIES['where_stream']}"
    )
    plan = connection.execute(
        f"EXPLAIN QUERY PLAN {query} ORDER BY version LIMIT 5", (0, 9, "job/1")
    ).fetchall()
    connection.close()
    steps = [row[3] for row in plan]
    assert steps[0] == "SEARCH events USING INDEX events_by_stream (stream=?)"
    assert not any("TEMP B-TREE" in step for step in steps)
