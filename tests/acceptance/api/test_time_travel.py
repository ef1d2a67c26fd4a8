"""``?at=``: every past state can be shown, named by a position or by a time."""

from __future__ import annotations

from typing import Any

import pytest

from finetuned.domain import facts
from finetuned.domain.streams import job_event


async def submit(client: Any, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/jobs", json={"kind": "fake", **body})
    job: dict[str, Any] = await response.json()
    return job


async def get(client: Any, path: str, **query: Any) -> Any:
    response = await client.get(path, params=query)
    assert response.status == 200, await response.text()
    return await response.json()


async def record(house: Any, job_id: str, *given: facts.Fact) -> None:
    await house.log.execute(lambda _world: [job_event(job_id, fact, actor="attempt:1") for fact in given])


async def test_a_job_is_shown_as_it_was_after_each_of_its_events(house: Any, client: Any) -> None:
    job = await submit(client)
    path = f"/v1/jobs/{job['id']}"
    seen: list[tuple[int, dict[str, Any]]] = [(job["seq"], job)]
    given: list[facts.Fact] = [
        facts.AttemptStarting(attempt=1, purpose="run", devices=[]),
        facts.AttemptStarted(attempt=1),
        facts.JobProgress({"step": 1, "loss": 2.0}),
        facts.JobPhase(phase="training"),
        facts.JobProgress({"step": 2, "loss": 1.0}),
        facts.JobCancelRequested(reason="enough"),
    ]
    for fact in given:
        await record(house, job["id"], fact)
        shown = await get(client, path)
        seen.append((shown["seq"], shown))
    for seq, then in seen:
        now = await get(client, path, at=seq)
        # A place in the queue is computed when it is read: the past has none.
        computed = {"queue_position": None, "wait_reason": None}
        assert now == then | computed


async def test_a_list_of_the_past_has_the_jobs_and_the_states_of_then(house: Any, client: Any) -> None:
    first = await submit(client, name="first")
    second = await submit(client, name="second")
    before = house.log.head
    await client.post(f"/v1/jobs/{first['id']}/cancel", json={})
    await submit(client, name="third")
    await client.delete(f"/v1/jobs/{first['id']}")
    then = await get(client, "/v1/jobs", at=before)
    assert [(job["name"], job["state"]) for job in then["data"]] == [
        ("second", "queued"),
        ("first", "queued"),
    ]
    page = await get(client, "/v1/jobs", at=before, limit=1)
    assert page["has_more"]
    rest = await get(client, "/v1/jobs", at=before, limit=1, after=page["next_after"])
    assert [job["id"] for job in rest["data"]] == [first["id"]]
    assert not rest["has_more"]
    cancelled = await get(client, "/v1/jobs", at=house.log.head - 1, state="cancelled")
    assert [job["id"] for job in cancelled["data"]] == [first["id"]]
    assert second["id"] in {job["id"] for job in (await get(client, "/v1/jobs", at=before))["data"]}


async def test_a_moment_can_be_named_by_its_time(house: Any, client: Any) -> None:
    first = await submit(client)
    await submit(client)
    events = (await get(client, "/v1/events"))["data"]
    at = next(event["at"] for event in events if event["stream"] == f"job/{first['id']}")
    then = await get(client, "/v1/jobs", at=at)
    assert [job["id"] for job in then["data"]] == [first["id"]]
    assert (await get(client, "/v1/jobs", at="2000-01-01T00:00:00Z"))["data"] == []


async def test_devices_and_models_of_the_past_are_those_of_then(house: Any, client: Any) -> None:
    start = house.log.head
    model = facts.ModelRegistered(name="bot", path="/m", kind="model", base=None, job=None)
    event = job_event("x", model, actor="daemon")
    await house.log.append([type(event)(**{**_fields(event), "stream": "model/bot"})])
    assert [each["id"] for each in (await get(client, "/v1/models"))["data"]] == ["bot"]
    assert (await get(client, "/v1/models", at=start))["data"] == []
    assert (await get(client, "/v1/devices", at=start))["data"] == (await get(client, "/v1/devices"))["data"]
    assert (await get(client, "/v1/devices", at=0))["data"] == []


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}


@pytest.mark.parametrize("at", ["yesterday", "-1", "2026-01-31", "2026-01-31T12:00:00"])
async def test_what_is_no_moment_is_refused(client: Any, at: str) -> None:
    response = await client.get("/v1/jobs", params={"at": at})
    assert response.status == 400
    error = (await response.json())["error"]
    assert error["param"] == "at"
    assert "2026-01-31T12:00:00Z" in error["message"]


async def test_a_job_that_was_not_there_yet_is_not_found(client: Any) -> None:
    job = await submit(client)
    response = await client.get(f"/v1/jobs/{job['id']}", params={"at": job["seq"] - 1})
    assert response.status == 404
    assert "name a later one" in (await response.json())["error"]["message"]
