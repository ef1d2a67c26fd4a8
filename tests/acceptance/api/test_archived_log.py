"""A log whose beginning is in an archive: what is left answers as before, and what is not there says so."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.acceptance.api.test_event_stream import stream
from tests.acceptance.api.test_time_travel import get, submit

from finetuned.cli import offline
from finetuned.commands.archiving import FOLLOWED
from finetuned.domain import facts
from finetuned.domain.errors import Rejected
from finetuned.followers import ContentRemover, DatasetRemover, FileRemover
from finetuned_events import EventLog, LogFullError


async def seen_by_followers(house: Any) -> None:
    for name in FOLLOWED:
        await house.log.execute(lambda _world: (), cursor=(name, house.log.head))


async def ended_job(house: Any) -> str:
    job_id: str = await house.accept_job()
    await house.start_attempt()
    for step in (1, 2, 3):
        await house.report(
            job_id, facts.JobProgress({"current_step": step, "metrics": {"loss": 1.0 / step}, "loss": 1.0})
        )
    await house.end_attempt(job_id)
    return job_id


async def archived(house: Any, client: Any, upto: int) -> dict[str, Any]:
    await seen_by_followers(house)
    response = await client.post("/v1/log/archive", json={"upto": str(upto)})
    assert response.status == 201, await response.text()
    report: dict[str, Any] = await response.json()
    return report


async def refusal(client: Any, path: str, **query: Any) -> dict[str, Any]:
    response = await client.get(path, params=query)
    error: dict[str, Any] = (await response.json())["error"]
    assert response.status == 410
    assert error["code"] == "archived"
    return error


def test_the_followers_that_are_waited_for_are_those_that_remove_files() -> None:
    assert {each.name: set(each.types) for each in (FileRemover, DatasetRemover, ContentRemover)} == {
        name: set(types) for name, types in FOLLOWED.items()
    }


async def test_jobs_of_the_archive_are_shown_as_they_ended(house: Any, client: Any) -> None:
    job_id = await ended_job(house)
    await ended_job(house)
    before = await get(client, f"/v1/jobs/{job_id}")
    all_before = await get(client, "/v1/jobs")
    report = await archived(house, client, house.log.head - 1)
    assert (report["first"], report["last"], report["held_back_by"]) == (1, house.log.sealed, None)
    assert {**await get(client, f"/v1/jobs/{job_id}"), "seq": None} == {**before, "seq": None}
    assert [job["id"] for job in (await get(client, "/v1/jobs"))["data"]] == [
        job["id"] for job in all_before["data"]
    ]
    assert (await get(client, "/v1/log"))["archives"] == [
        {key: value for key, value in report.items() if key != "held_back_by"}
    ]
    verified = await (await client.post("/v1/log/verify")).json()
    assert (verified["ok"], verified["events"]) == (True, 2)  # the newest, and the archiving itself
    assert (await (await client.post("/v1/log/rebuild")).json())["equal"]


async def test_the_past_is_shown_from_the_seal_on_and_refused_before_it(house: Any, client: Any) -> None:
    first = await ended_job(house)
    then = house.log.head
    second = await ended_job(house)
    jobs = {at: await get(client, "/v1/jobs", at=at) for at in range(then, house.log.head + 1)}
    one = {at: await get(client, f"/v1/jobs/{first}", at=at) for at in range(then, house.log.head + 1)}
    devices = {at: await get(client, "/v1/devices", at=at) for at in range(then, house.log.head + 1)}
    last_at = (await house.log.read(after=then - 1, limit=1))[0].at
    await archived(house, client, then)
    for at, found in jobs.items():
        assert await get(client, "/v1/jobs", at=at) == found
        assert await get(client, f"/v1/jobs/{first}", at=at) == one[at]
        assert await get(client, "/v1/devices", at=at) == devices[at]
    for path in ("/v1/jobs", f"/v1/jobs/{first}", "/v1/devices", "/v1/models"):
        error = await refusal(client, path, at=then - 1)
        assert f"ask for {then} or a later one" in error["message"]
    await refusal(client, "/v1/jobs", at="2001-01-01T00:00:00Z")
    assert (await get(client, "/v1/jobs", at="2999-01-01T00:00:00Z"))["data"][0]["id"] == second
    assert last_at == house.log.seals[-1].at


async def test_a_look_at_the_past_from_before_the_archiving_is_not_gone_on_from(
    house: Any, client: Any
) -> None:
    await ended_job(house)
    await get(client, "/v1/jobs", at=3)  # its world is kept for the next look
    await ended_job(house)
    head = house.log.head
    before = await get(client, "/v1/jobs", at=head)
    await get(client, "/v1/jobs", at=3)
    await archived(house, client, head - 2)
    assert await get(client, "/v1/jobs", at=head) == before


async def test_a_cursor_before_what_is_kept_is_reset_and_a_page_after_it_refused(
    house: Any, client: Any
) -> None:
    job_id = await ended_job(house)
    await ended_job(house)
    sealed = (await archived(house, client, house.log.head - 2))["last"]
    for path in ("/v1/events", f"/v1/jobs/{job_id}/events"):
        async with stream(client, path, last=2) as events:
            frame = await events.frame()
            assert frame.event == "reset"
            assert json.loads(frame.data or "") == {"reason": "archived", "head": house.log.head}
            assert int(frame.id or 0) <= sealed
    async with stream(client, last=2) as events:
        await events.frame()
        assert await events.seqs(3) == [sealed + 1, sealed + 2, sealed + 3]
    error = await refusal(client, "/v1/events", after=2)
    assert f"after={sealed}" in error["message"]
    kept = await get(client, "/v1/events")
    assert [event["seq"] for event in kept["data"]] == [sealed + 1, sealed + 2, sealed + 3]
    assert kept["data"][-1]["type"] == "log.archived"


async def test_a_client_that_was_behind_when_its_events_were_archived_is_told(
    house: Any, client: Any
) -> None:
    job_id = await ended_job(house)
    await ended_job(house)
    scan = house.queries.log.scan
    upto = house.log.head - 2

    async def archived_meanwhile(**wanted: Any) -> Any:
        if not house.log.sealed:
            await seen_by_followers(house)
            await house.commands.archives.archive(upto, actor="uid:0")
        return await scan(**wanted)

    house.queries.log.scan = archived_meanwhile
    async with stream(client, f"/v1/jobs/{job_id}/events", last=3) as events:
        frame = await events.frame()
    assert (frame.event, json.loads(frame.data or "")["reason"]) == ("reset", "archived")
    assert house.log.sealed == upto


async def test_curves_of_the_archive_are_refused_and_not_drawn_in_part(house: Any, client: Any) -> None:
    job_id = await ended_job(house)
    assert (await get(client, f"/v1/jobs/{job_id}/metrics"))["series"]
    await ended_job(house)
    await archived(house, client, house.log.head - 2)
    error = await refusal(client, f"/v1/jobs/{job_id}/metrics")
    assert "zcat" in error["message"]


async def test_the_events_of_a_live_job_stay_and_the_answer_says_why_it_went_no_further(
    house: Any, client: Any
) -> None:
    await ended_job(house)
    live = await submit(client)
    other = await submit(client)
    await client.post(f"/v1/jobs/{other['id']}/cancel", json={})
    report = await archived(house, client, house.log.head - 1)
    assert report["last"] == live["seq"] - 1
    assert live["id"] in report["held_back_by"]
    again = await client.post("/v1/log/archive", json={"upto": str(house.log.head)})
    error = (await again.json())["error"]
    assert (again.status, error["code"]) == (409, "nothing_to_archive")
    assert live["id"] in error["message"]
    assert "Name a later position, or wait" in error["message"]


async def test_events_that_a_remover_of_files_has_not_seen_stay(house: Any, client: Any) -> None:
    job_id = await ended_job(house)
    await seen_by_followers(house)
    await client.delete(f"/v1/jobs/{job_id}")
    deleted = house.log.head
    await ended_job(house)
    response = await client.post("/v1/log/archive", json={"upto": str(house.log.head)})
    report = await response.json()
    assert report["last"] == deleted - 1
    assert report["held_back_by"].startswith("file-remover has not seen")


async def test_an_archive_that_cannot_be_written_is_refused_and_nothing_is_lost(
    house: Any, client: Any
) -> None:
    await ended_job(house)
    await seen_by_followers(house)
    response = await client.post("/v1/log/archive", json={"upto": "3", "path": "/proc/none/x.gz"})
    error = (await response.json())["error"]
    assert (response.status, error["code"], house.log.sealed) == (400, "archive_failed", 0)
    response = await client.post("/v1/log/archive", json={"upto": "3", "path": "relative.gz"})
    assert response.status == 400


async def test_an_archive_is_refused_before_anything_is_written_while_there_is_too_little_room(
    house: Any, client: Any, state_dir: Path
) -> None:
    await ended_job(house)
    await seen_by_followers(house)
    house.disk_is_full = True
    response = await client.post("/v1/log/archive", json={"upto": "3"})
    assert (response.status, (await response.json())["error"]["code"]) == (507, "disk_full")
    assert not await anyio.Path(state_dir / "archives").exists()
    house.disk_is_full = False
    assert (await archived(house, client, 3))["last"] == 3


async def test_a_disk_that_becomes_full_while_the_log_is_archived_is_told_as_that(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    await ended_job(house)
    await seen_by_followers(house)
    monkeypatch.setattr(os, "link", full)
    response = await client.post("/v1/log/archive", json={"upto": "3"})
    assert (response.status, (await response.json())["error"]["code"]) == (507, "disk_full")
    assert house.log.sealed == 0
    monkeypatch.undo()
    assert (await archived(house, client, 3))["last"] == 3


async def test_an_archive_that_is_made_is_no_error_though_there_is_no_room_to_say_who_made_it(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(*_arguments: object, **_keywords: object) -> None:
        raise LogFullError

    await ended_job(house)
    await seen_by_followers(house)
    monkeypatch.setattr(house.log, "execute", full)
    response = await client.post("/v1/log/archive", json={"upto": "3"})
    assert (response.status, (await response.json())["last"]) == (201, 3)
    monkeypatch.undo()
    assert house.log.sealed == 3
    assert "archived up to event 3 is not in the log" in caplog.text


async def test_what_is_no_moment_is_refused_by_the_name_that_the_request_has_for_it(client: Any) -> None:
    response = await client.post("/v1/log/archive", json={"upto": "soon"})
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "invalid_request", "upto")
    assert error["message"].startswith("upto must be a position of the log")


async def test_of_two_that_archive_at_once_the_later_finds_what_the_earlier_left(
    house: Any, client: Any
) -> None:
    await ended_job(house)
    await seen_by_followers(house)
    outcomes: list[object] = []

    async def archive(upto: int) -> None:
        try:
            outcomes.append((await house.commands.archives.archive(upto, actor="uid:0")).file.events)
        except Rejected as refused:
            outcomes.append(refused.stable_code)

    async with anyio.create_task_group() as group:
        group.start_soon(archive, 5)
        group.start_soon(archive, 3)
    assert outcomes in ([5, "nothing_to_archive"], [3, 2])
    assert (await (await client.post("/v1/log/verify")).json())["ok"]


@pytest.mark.parametrize("whose", ["ours", "another's", "damaged"])
async def test_an_archive_is_checked_with_its_place_in_the_log(
    house: Any, client: Any, state_dir: Path, tmp_path: Path, whose: str
) -> None:
    await ended_job(house)
    await ended_job(house)
    report = await archived(house, client, 4)
    path = Path(report["path"])
    assert path == state_dir / "archives" / "events-1-4.jsonl.gz"
    if whose == "another's":
        async with EventLog.open(tmp_path / "other.db") as other:
            await other.append([(await house.log.read(limit=1))[0]] * 5)
            path = (await other.archive(4)).path
    if whose == "damaged":
        path = tmp_path / "damaged.gz"
        await anyio.Path(path).write_bytes((await anyio.Path(report["path"]).read_bytes())[:-9])
    known = (await get(client, "/v1/log"))["archives"]
    found = await anyio.to_thread.run_sync(offline.verify_archive, path, known)
    expected = {"ours": [], "another's": ["The file holds, and no archive"], "damaged": [str(path)]}[whose]
    assert found["ok"] == (whose == "ours")
    assert [each[: len(start)] for each, start in zip(found["problems"], expected, strict=True)] == expected
