"""A request that is only tried: what is told of it, and that nothing is left of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from finetuned_sdk import Estimate, Host, JobKind

GB = 1_000_000_000


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    batch: int = 4


@pytest.fixture
def sized(house: Any) -> Any:
    """A house of 3 GB that knows a kind which takes a gigabyte a row."""

    async def host() -> Host:
        return Host(memory_bytes=3 * GB, memory_free_bytes=3 * GB)

    house.commands.host = host
    house.commands.registry.job_kind(
        JobKind(
            name="sized",
            summary="",
            params=Params,
            entry="m:f",
            estimate=lambda params, _host: Estimate(
                host_bytes=params.batch * GB, breakdown={"activations": params.batch * GB}
            ),
            alternatives=lambda _params, _host: [[{"batch": 2}, {"batch": 1}]],
            effective=lambda params, _host: {**params.model_dump(), "rate": 0.5},
        )
    )
    return house


async def try_out(client: Any, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/jobs", params={"dry_run": "true"}, json=body)
    assert response.status == 200, await response.text()
    found: dict[str, Any] = await response.json()
    return found


async def test_a_dry_run_tells_all_and_records_nothing(sized: Any, client: Any) -> None:
    head = sized.log.head
    found = await try_out(client, kind="sized", params={"batch": 2})
    assert (found["object"], found["accepted"], found["kind"]) == ("dry_run", True, "sized")
    assert found["params"] == {"batch": 2, "rate": 0.5}
    assert found["estimate"]["host_bytes"] == 2 * GB
    assert found["estimate"]["breakdown"] == {"activations": 2 * GB}
    verdicts = {check["name"]: check["verdict"] for check in found["checks"]}
    assert verdicts == {"host_memory": "ok", "disk": "unknown"}
    assert found["duration"] == {"seconds": None, "source": None, "jobs": 0, "steps": None}
    assert found["start"] == {
        "now": True,
        "devices": ["cpu:0"],
        "wait_reason": None,
        "queue_position": 1,
        "after_validation": False,
    }
    assert sized.log.head == head
    assert (await (await client.get("/v1/jobs")).json())["data"] == []


async def test_a_dry_run_names_who_is_before_it(sized: Any, client: Any) -> None:
    await sized.accept_job()
    await sized.start_attempt()
    found = await try_out(client, kind="sized", params={"batch": 1})
    assert found["start"]["now"] is False
    assert found["start"]["wait_reason"] == "needs 1 device; 0 of 1 free, held by job-1"


async def test_what_does_not_fit_is_told_by_a_dry_run_and_refused_otherwise(sized: Any, client: Any) -> None:
    body = {"kind": "sized", "params": {"batch": 8}}
    found = await try_out(client, **body)
    assert found["accepted"] is False
    assert found["checks"][0]["verdict"] == "refused"
    assert found["checks"][0]["figures"] == {"needed": 8 * GB, "available": 3 * GB, "free": 3 * GB}
    assert [fix["params"] for fix in found["fixes"]] == [{"batch": 2}]
    head = sized.log.head
    response = await client.post("/v1/jobs", json=body)
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (400, "does_not_fit")
    assert (
        "8.0 GB of memory and 3.0 GB are there. It would fit with batch=2 (about 2.0 GB)" in error["message"]
    )
    assert sized.log.head == head
    response = await client.post("/v1/jobs", json={**body, "ignores_estimate": True})
    job = await response.json()
    assert (response.status, job["ignores_estimate"]) == (201, True)
    assert "3.0 GB are there" in job["advice"][0]["message"]


async def test_a_dry_run_of_a_bad_request_is_refused_as_the_request_is(sized: Any, client: Any) -> None:
    response = await client.post("/v1/jobs?dry_run=1", json={"kind": "sized", "params": {"batches": 1}})
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "unknown_parameter", "params.batches")


async def test_what_is_tight_is_accepted_and_told(sized: Any, client: Any) -> None:
    response = await client.post("/v1/jobs", json={"kind": "sized", "params": {"batch": 3}})
    job = await response.json()
    assert response.status == 201
    assert [advice["setting"] for advice in job["advice"]] == ["host_memory"]
    assert "tight" in job["advice"][0]["message"]
