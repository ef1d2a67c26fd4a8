"""A state directory that an older release wrote: its tables are made anew from the events, and it answers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from tests.acceptance.api.conftest import Open, OpenClient

from finetuned.store import WorldProjection

PATHS = ("/v1/jobs", "/v1/tokens", "/v1/devices", "/v1/templates", "/v1/events")

#: the tables of the first release, which knew neither datasets nor templates, and its jobs' other documents
FIRST = """
CREATE TABLE models (name TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE tokens (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO tokens SELECT key, document FROM registers WHERE register = 'tokens';
DROP TABLE registers;
DROP INDEX jobs_counted;
UPDATE jobs SET document = json_remove(CAST(document AS TEXT), '$.id', '$.state');
UPDATE projections SET version = 1, tables = '["jobs", "devices", "models", "tokens"]' WHERE name = 'world';
"""
#: the right tables with rows of another meaning
SAME_TABLES = """
UPDATE jobs SET state = 'of old', document = '{}';
DELETE FROM registers;
UPDATE projections SET version = version - 1;
"""


def made_older(state_dir: Path, script: str) -> None:
    with closing(sqlite3.connect(state_dir / "events.sqlite")) as log:
        log.executescript(script)


def tables(state_dir: Path) -> tuple[int, set[str]]:
    """The version of the daemon's projection, and which tables of any release there are."""
    with closing(sqlite3.connect(state_dir / "events.sqlite")) as log:
        (version,) = log.execute("SELECT version FROM projections WHERE name = 'world'").fetchone()
        found = {name for (name,) in log.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return version, found & {"jobs", "devices", "models", "tokens", "registers"}


async def answers(client: Any, jobs: list[str]) -> dict[str, Any]:
    found = {}
    for path in (*PATHS, *(f"/v1/jobs/{job}" for job in jobs)):
        async with client.get(path) as response:
            assert response.status == 200, await response.text()
            found[path] = await response.json()
    return found


@pytest.mark.parametrize("script", [FIRST, SAME_TABLES], ids=["other tables", "same tables"])
async def test_what_an_older_release_wrote_is_opened_as_it_is_and_answers_the_same(
    state_dir: Path, open_house: Open, open_client: OpenClient, script: str
) -> None:
    async with open_house() as house, open_client(house) as client:
        jobs = [await house.accept_job() for _ in range(3)]
        await house.start_attempt()
        await house.progress(jobs[0], 1, 2)
        for method, path, body in (
            ("POST", f"/v1/jobs/{jobs[1]}/cancel", None),
            ("POST", "/v1/tokens", {"scope": "read", "name": "dashboard"}),
            ("PUT", "/v1/templates/nightly", {"request": {"kind": "fake"}}),
        ):
            async with client.request(method, path, json=body) as response:
                assert response.status in {200, 201}, await response.text()
        before = await answers(client, jobs)
    as_written = await anyio.to_thread.run_sync(tables, state_dir)
    await anyio.to_thread.run_sync(made_older, state_dir, script)
    assert await anyio.to_thread.run_sync(tables, state_dir) != as_written

    async with open_house() as house, open_client(house) as client:
        assert await answers(client, jobs) == before
        assert (await house.commands.rebuild_log()).equal
        async with client.post("/v1/jobs", json={"kind": "fake", "params": {}}) as response:
            assert response.status == 201, await response.text()
    assert await anyio.to_thread.run_sync(tables, state_dir) == as_written
    assert as_written == (WorldProjection.version, set(WorldProjection.tables))
    assert [each["state"] for each in before["/v1/jobs"]["data"]] == ["queued", "cancelled", "starting"]


async def test_a_position_of_the_past_is_answered_from_an_older_log_too(
    state_dir: Path, open_house: Open, open_client: OpenClient
) -> None:
    async with open_house() as house, open_client(house) as client:
        job = await house.accept_job()
        at = house.log.head
        await house.start_attempt()
        async with client.get(f"/v1/jobs/{job}", params={"at": at}) as response:
            before = await response.json()
    await anyio.to_thread.run_sync(made_older, state_dir, FIRST)
    async with (
        open_house() as house,
        open_client(house) as client,
        client.get(f"/v1/jobs/{job}", params={"at": at}) as response,
    ):
        after = await response.json()
    assert (after, after["state"]) == (before, "queued")
