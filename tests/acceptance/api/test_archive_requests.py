"""What ``POST /v1/log/archive`` takes, what it refuses, and what the log has of it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from tests.acceptance.api.test_archived_log import archived, ended_job, seen_by_followers
from tests.acceptance.api.test_time_travel import get


@pytest.mark.parametrize("path", ["/", "//", "/" + "x" * 300, "/tmp/a/.."])
async def test_a_path_that_can_be_no_file_is_refused_as_one_that_cannot_be_written(
    house: Any, client: Any, path: str
) -> None:
    await ended_job(house)
    await seen_by_followers(house)
    response = await client.post("/v1/log/archive", json={"upto": "5", "path": path})
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "archive_failed", "path")
    assert house.log.sealed == 0


@pytest.mark.parametrize("path", ["/tmp/a\0b", "relative"])
async def test_a_path_that_is_none_is_refused_by_name(house: Any, client: Any, path: str) -> None:
    await ended_job(house)
    await seen_by_followers(house)
    response = await client.post("/v1/log/archive", json={"upto": "5", "path": path})
    error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, "path")
    assert house.log.sealed == 0


async def test_a_position_may_be_a_number(house: Any, client: Any) -> None:
    await ended_job(house)
    await seen_by_followers(house)
    response = await client.post("/v1/log/archive", json={"upto": 3})
    assert (response.status, (await response.json())["last"]) == (201, 3)


@pytest.mark.parametrize("upto", [-1, 2.5, True, None, [3], "x" * 65])
async def test_what_is_neither_a_position_nor_a_time_is_refused_by_name(client: Any, upto: Any) -> None:
    response = await client.post("/v1/log/archive", json={"upto": upto})
    error = (await response.json())["error"]
    assert response.status == 400
    assert error["param"].startswith("upto")


async def test_who_archived_what_is_in_the_log_behind_it(house: Any, client: Any) -> None:
    await ended_job(house)
    report = await archived(house, client, 3)
    (told,) = (await get(client, "/v1/events", types="log.archived"))["data"]
    assert (told["stream"], told["actor"]) == ("log", f"uid:{os.getuid()}")
    assert told["data"] == {"upto": 3, "path": report["path"]}
    assert told["seq"] == house.log.head
