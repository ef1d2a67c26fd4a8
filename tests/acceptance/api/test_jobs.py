"""Jobs over HTTP, from the request to what is in the log."""

from __future__ import annotations

import io
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from finetuned.domain import facts
from finetuned.queries import door as queries
from finetuned.store import job_from
from finetuned_events import LogBrokenError, LogClosedError, LogFullError
from finetuned_sdk import checkpoints

JSON = {"Content-Type": "application/json"}


async def submit(client: Any, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/jobs", json={"kind": "fake", **body})
    assert response.status == 201, await response.text()
    job: dict[str, Any] = await response.json()
    return job


async def refused(response: Any, status: int) -> dict[str, Any]:
    """The error of a refusal, whose shape is checked."""
    assert response.status == status, await response.text()
    assert response.content_type == "application/json"
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "param", "type"}
    assert "Traceback" not in body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


async def test_an_accepted_job_is_on_disk_and_shows_all_that_was_asked_for(house: Any, client: Any) -> None:
    job = await submit(client, params={"steps": 3}, priority=5, name="first", metadata={"for": "me"})
    with sqlite3.connect(house.log.path) as database:
        (count,) = database.execute("SELECT COUNT(*) FROM events WHERE type = 'job.submitted'").fetchone()
    assert count == 1
    assert job["state"] == "queued"
    assert (job["params"], job["priority"], job["name"]) == ({"steps": 3}, 5, "first")
    assert job["metadata"] == {"for": "me"}
    assert job["queue_position"] == 1
    assert job["wait_reason"]
    assert job["submitted_by"].startswith("uid:")
    named = {
        "id", "kind", "name", "state", "params", "priority", "attempt", "created_at", "started_at", "paused_at",
        "finished_at", "progress", "wait_reason", "queue_position", "retry_of", "estimate", "error", "result",
    }  # fmt: skip
    assert named <= set(job)
    shown = await (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert shown == job


async def test_a_body_without_content_type_is_read_as_json(client: Any) -> None:
    response = await client.post(
        "/v1/jobs", data=b'{"kind": "fake"}', skip_auto_headers=["Content-Type"], headers={}
    )
    assert response.status == 201


async def test_jobs_are_paged_newest_first_without_gap_or_repetition(client: Any) -> None:
    ids = [(await submit(client, name=f"n{number}"))["id"] for number in range(7)]
    pages: list[list[str]] = []
    after: dict[str, str] = {}
    while True:
        page = await (await client.get("/v1/jobs", params={"limit": 3} | after)).json()
        assert page["object"] == "list"
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        pages.append([job["id"] for job in page["data"]])
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert pages == [ids[:3:-1], ids[3:0:-1], ids[:1]]


async def test_paging_goes_on_after_a_job_that_was_deleted_meanwhile(client: Any) -> None:
    first, second = await submit(client), await submit(client)
    await client.post(f"/v1/jobs/{second['id']}/cancel")
    assert (await client.delete(f"/v1/jobs/{second['id']}")).status == 200
    page = await (await client.get("/v1/jobs", params={"after": second["id"]})).json()
    assert [job["id"] for job in page["data"]] == [first["id"]]


async def test_jobs_are_filtered_by_state_kind_and_name(client: Any) -> None:
    kept, cancelled = await submit(client, name="kept"), await submit(client, name="gone")
    await client.post(f"/v1/jobs/{cancelled['id']}/cancel")
    for parameters, expected in (
        ({"state": "queued"}, [kept]),
        ({"state": "cancelled"}, [cancelled]),
        ({"name": "gone"}, [cancelled]),
        ({"kind": "fake", "state": "running"}, []),
    ):
        page = await (await client.get("/v1/jobs", params=parameters)).json()
        assert [job["id"] for job in page["data"]] == [job["id"] for job in expected], parameters
    assert page["first_id"] is None


async def test_a_cancelled_job_tells_who_and_why_in_its_events(client: Any) -> None:
    job = await submit(client)
    response = await client.post(f"/v1/jobs/{job['id']}/cancel", json={"reason": "a typo"})
    assert (await response.json())["state"] == "cancelled"
    page = await (await client.get(f"/v1/jobs/{job['id']}/events")).json()
    assert [event["type"] for event in page["data"]] == [
        "job.submitted", "job.cancel_requested", "job.cancelled",
    ]  # fmt: skip
    assert page["data"][1]["data"] == {"reason": "a typo"}
    assert page["data"][1]["actor"].startswith("uid:")
    assert set(page["data"][0]) == {"seq", "stream", "version", "type", "at", "actor", "data"}
    error = await refused(await client.post(f"/v1/jobs/{job['id']}/cancel"), 409)
    assert error["code"] == "job_ended"


@pytest.fixture
def saved(tmp_path: Path) -> dict[int, str]:
    """Two complete checkpoints on disk: their paths by step."""
    found = {}
    for step in (100, 200):
        made = tmp_path / f"made-{step}"
        made.mkdir()
        (made / "weights.bin").write_bytes(b"1")
        found[step] = str(checkpoints.publish(made, tmp_path, step=step, metrics={})[0])
    return found


async def test_retry_makes_a_new_job_from_a_named_checkpoint(
    house: Any, client: Any, saved: dict[int, str]
) -> None:
    job = await submit(client, params={"steps": 2}, priority=1)
    await refused(await client.post(f"/v1/jobs/{job['id']}/retry"), 409)
    await house.start_attempt()
    await house.report(
        job["id"],
        facts.AttemptStarted(attempt=1),
        facts.CheckpointSaved(attempt=1, step=100, path=saved[100], bytes=1),
        facts.CheckpointSaved(attempt=1, step=200, path=saved[200], bytes=1),
    )
    await house.end_attempt(job["id"])
    for body, resumed in (
        (None, None),
        ({"from_checkpoint": "latest"}, saved[200]),
        ({"from_checkpoint": 100}, saved[100]),
    ):
        response = await client.post(f"/v1/jobs/{job['id']}/retry", json=body) if body else (
            await client.post(f"/v1/jobs/{job['id']}/retry")
        )  # fmt: skip
        assert response.status == 201
        again = await response.json()
        assert (again["retry_of"], again["resume_from"], again["priority"]) == (job["id"], resumed, 1)
    higher = await (await client.post(f"/v1/jobs/{job['id']}/retry", json={"priority": 9})).json()
    assert higher["priority"] == 9
    error = await refused(
        await client.post(f"/v1/jobs/{job['id']}/retry", json={"from_checkpoint": "300"}), 404
    )
    assert error["param"] == "from_checkpoint"
    assert "100, 200" in error["message"]


async def test_a_deleted_job_is_gone_and_a_live_one_stays(client: Any) -> None:
    job = await submit(client)
    assert (await refused(await client.delete(f"/v1/jobs/{job['id']}"), 409))["code"] == "job_live"
    await client.post(f"/v1/jobs/{job['id']}/cancel")
    deleted = await (await client.delete(f"/v1/jobs/{job['id']}")).json()
    assert deleted == {"id": job["id"], "object": "job", "deleted": True}
    await refused(await client.get(f"/v1/jobs/{job['id']}"), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/job-none"),
        ("DELETE", "/v1/jobs/job-none"),
        ("POST", "/v1/jobs/job-none/cancel"),
        ("POST", "/v1/jobs/job-none/retry"),
        ("GET", "/v1/jobs/job-none/events"),
        ("GET", "/v1/jobs/job-none/logs"),
        ("GET", "/v1/models/none/such"),
        ("DELETE", "/v1/models/none"),
        ("GET", "/v1/kinds/none"),
        ("DELETE", "/v1/tokens/tok-none"),
        ("GET", "/v1/nothing"),
        ("GET", "/"),
    ],
)
async def test_what_does_not_exist_is_a_404_in_json(client: Any, method: str, path: str) -> None:
    await refused(await client.request(method, path), 404)


@pytest.mark.parametrize(
    ("body", "code", "param", "said"),
    [
        (b"", "missing_parameter", "kind", "missing"),
        (b'{"kind": "fake"', "invalid_json", None, "line 1, column 16"),
        (b'{"kind":\n nope}', "invalid_json", None, "line 2"),
        (b"[]", "invalid_json", None, "an array"),
        (b"3", "invalid_json", None, "a number"),
        (b"null", "invalid_json", None, "null"),
        (b'"x"', "invalid_json", None, "a string"),
        (b"true", "invalid_json", None, "a boolean"),
        (b"\xff\xfe", "invalid_json", None, "not JSON"),
        (b"[" * 5000, "invalid_json", None, "not JSON"),
        (b"{}", "missing_parameter", "kind", "missing"),
        (b'{"kind": "fakee"}', "unknown_kind", "kind", "'fake'"),
        (b'{"kind": "fake", "parms": {}}', "unknown_parameter", "parms", "'params'"),
        (b'{"kind": "fake", "params": {"stepz": 1}}', "unknown_parameter", "params.stepz", "'steps'"),
        (b'{"kind": "fake", "params": {"steps": 0}}', "invalid_params", "params.steps", "got 0"),
        (b'{"kind": "fake", "priority": 1e9}', "invalid_params", "priority", "1000"),
        (b'{"kind": "fake", "max_attempts": 0}', "invalid_params", "max_attempts", "1"),
    ],
)
async def test_a_bad_body_is_refused_by_name_and_nothing_is_recorded(
    house: Any, client: Any, body: bytes, code: str, param: str | None, said: str
) -> None:
    head = house.log.head
    error = await refused(await client.post("/v1/jobs", data=body, headers=JSON), 400)
    assert (error["code"], error["param"]) == (code, param)
    assert said in error["message"]
    assert house.log.head == head


async def test_other_refusals_say_what_to_do_and_record_nothing(house: Any, client: Any) -> None:
    head = house.log.head
    too_large = b'{"kind": "fake", "name": "' + b"x" * house.config.max_body_bytes + b'"}'
    error = await refused(await client.post("/v1/jobs", data=io.BytesIO(too_large), headers=JSON), 413)
    assert (error["code"], "max_body_bytes" in error["message"]) == ("body_too_large", True)
    error = await refused(await client.post("/v1/jobs", data={"kind": "fake"}), 415)
    assert "application/json" in error["message"]
    house.disk_is_full = True
    error = await refused(await client.post("/v1/jobs", json={"kind": "fake"}), 507)
    assert error["code"] == "disk_full"
    response = await client.put("/v1/jobs")
    assert response.headers["Allow"] == "GET, POST"
    assert (await refused(response, 405))["code"] == "method_not_allowed"
    assert house.log.head == head


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/jobs?limit=0", "limit"),
        ("/v1/jobs?limit=1001", "limit"),
        ("/v1/jobs?limit=ten", "limit"),
        ("/v1/jobs?limit=1&limit=2", "limit"),
        ("/v1/jobs?state=done", "state"),
        ("/v1/jobs?after=job-none", "after"),
        ("/v1/jobs?sate=queued", "sate"),
        ("/v1/events?after=-1", "after"),
        ("/v1/events?types=job.progres", "types"),
        ("/v1/events?stream=maybe", "stream"),
        ("/v1/kinds?limit=3", "limit"),
        ("/v1/devices?x=1", "x"),
    ],
)
async def test_a_bad_query_parameter_is_refused_by_name(client: Any, path: str, param: str) -> None:
    assert (await refused(await client.get(path), 400))["param"] == param


async def test_events_are_paged_and_filtered(house: Any, client: Any) -> None:
    job = await submit(client)
    await house.progress(job["id"], *range(10))
    page = await (await client.get("/v1/events", params={"types": "job.progress", "limit": 4})).json()
    assert [event["data"]["current_step"] for event in page["data"]] == [0, 1, 2, 3]
    assert page["has_more"] is True
    rest = await (
        await client.get("/v1/events", params={"types": "job.progress", "after": page["last_id"]})
    ).json()
    assert [event["data"]["current_step"] for event in rest["data"]] == [4, 5, 6, 7, 8, 9]
    assert rest["has_more"] is False
    forced = await client.get("/v1/events?stream=false", headers={"Accept": "text/event-stream"})
    assert forced.content_type == "application/json"


async def test_rare_events_are_found_over_pages_that_are_empty(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuned_events.log._SCAN", 50)
    job = await submit(client)
    for start in range(0, 3000, 1000):  # more than the log keeps in memory
        await house.progress(job["id"], *range(start, start + 1000))
    monkeypatch.setattr(house.log, "recent", lambda _after: None)
    await house.report(job["id"], facts.JobPhase(phase="training"))
    found: list[str] = []
    pages, after = 0, 0
    while True:
        parameters = {"types": "job.phase", "after": str(after)}
        page = await (await client.get("/v1/events", params=parameters)).json()
        found += [event["type"] for event in page["data"]]
        assert page["next_after"] - after <= 50
        pages, after = pages + 1, page["next_after"]
        if not page["has_more"]:
            break
    assert found == ["job.phase"]
    assert pages > 50
    assert after == house.log.head


async def test_following_after_the_seq_of_a_job_misses_nothing(house: Any, client: Any) -> None:
    job = await submit(client)
    await house.progress(job["id"], 1, 2)
    shown = await (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert shown["progress"] == {"current_step": 2}
    await house.progress(job["id"], 3)
    rest = await (
        await client.get(f"/v1/jobs/{job['id']}/events", params={"after": str(shown["seq"])})
    ).json()
    assert [event["data"] for event in rest["data"]] == [{"current_step": 3}]
    listed = await (await client.get("/v1/jobs")).json()
    assert listed["data"][0]["seq"] == house.log.head


async def test_a_large_page_is_decoded_and_written_off_the_event_loop(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def watched(document: bytes) -> Any:
        threads.add(threading.get_ident())
        return job_from(document)

    for _ in range(queries.INLINE_JOBS + 1):
        await house.accept_job()
    monkeypatch.setattr("finetuned.queries.door.job_from", watched)
    page = await (await client.get("/v1/jobs?limit=1000")).json()
    assert len(page["data"]) == queries.INLINE_JOBS + 1
    assert page["data"][0]["queue_position"] == queries.INLINE_JOBS + 1
    assert threads
    assert threading.get_ident() not in threads


async def test_the_list_routes_answer_what_is_there(client: Any) -> None:
    kinds = await (await client.get("/v1/kinds")).json()
    assert [kind["name"] for kind in kinds["data"]] == ["fake", "fake-engine"]
    assert kinds["data"][0]["params_schema"]["properties"]["steps"]["minimum"] == 1
    assert (await (await client.get("/v1/kinds/fake")).json()) == kinds["data"][0]
    devices = await (await client.get("/v1/devices")).json()
    assert [device["id"] for device in devices["data"]] == ["cpu:0"]
    assert (await (await client.get("/v1/models")).json())["data"] == []


async def test_a_model_that_a_job_made_is_shown_and_its_name_can_be_freed(house: Any, client: Any) -> None:
    job = await submit(client)
    await house.start_attempt()
    await house.report(
        job["id"],
        facts.AttemptStarted(attempt=1),
        facts.AttemptModel(attempt=1, name="team/orders", path="/m", kind="adapter", base="smollm2"),
    )
    await house.end_attempt(job["id"])
    shown = await (await client.get("/v1/models/team%2Forders")).json()
    assert (shown["object"], shown["owned_by"], shown["job"]) == ("model", "finetuned", job["id"])
    listed = await (await client.get("/v1/models")).json()
    assert listed["data"][0] == shown
    assert [each["id"] for each in listed["data"]] == ["team/orders", shown["fine_tuned_model"]]
    assert (await client.delete("/v1/models/team%2Forders")).status == 200
    await refused(await client.get("/v1/models/team%2Forders"), 404)


async def test_the_log_can_be_looked_at_checked_replayed_and_copied(house: Any, client: Any) -> None:
    await submit(client)
    statistics = await (await client.get("/v1/log")).json()
    assert statistics["head"] == house.log.head
    verified = await (await client.post("/v1/log/verify")).json()
    assert (verified["ok"], verified["head"]["seq"]) == (True, house.log.head)
    rebuilt = await (await client.post("/v1/log/rebuild")).json()
    assert (rebuilt["equal"], rebuilt["swapped"]) == (True, [])
    copy = house.jobs_dir.parent / "copy.sqlite"
    made = await client.post("/v1/log/backup", json={"path": str(copy)})
    assert made.status == 201
    with sqlite3.connect(copy) as database:
        assert database.execute("SELECT MAX(seq) FROM events").fetchone() == (house.log.head,)
    again = await refused(await client.post("/v1/log/backup", json={"path": str(copy)}), 400)
    assert again["param"] == "path"
    relative = await refused(await client.post("/v1/log/backup", json={"path": "copy.sqlite"}), 400)
    assert "absolute" in relative["message"]


async def test_an_unforeseen_failure_names_a_reference_and_shows_no_traceback(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("the secret reason")

    monkeypatch.setattr(type(house.queries), "models", broken)
    error = await refused(await client.get("/v1/models"), 500)
    reference = next(record for record in caplog.records if record.exc_info).getMessage()[-13:-1]
    assert reference in error["message"]
    assert "secret" not in error["message"]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (LogFullError(), 507, "disk_full"),
        (LogBrokenError(), 503, "unavailable"),
        (LogClosedError(), 503, "unavailable"),
    ],
)
async def test_a_log_that_cannot_write_is_told_as_it_is(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int, code: str
) -> None:
    async def execute(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(type(house.log), "execute", execute)
        assert (await refused(await client.post("/v1/jobs", json={"kind": "fake"}), status))["code"] == code


async def test_health_is_open_and_readiness_waits_for_recovery(house: Any, client: Any) -> None:
    alive = await (await client.get("/healthz")).json()
    assert (alive["status"], alive["uptime_s"] >= 0) == ("ok", True)
    assert (await client.get("/readyz")).status == 200
    house.ready = False
    await refused(await client.get("/readyz"), 503)
    assert (await client.get("/healthz")).status == 200
