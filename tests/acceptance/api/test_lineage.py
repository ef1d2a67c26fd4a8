"""Where a model comes from, and what makes sense next for a job, over the API."""

from __future__ import annotations

from typing import Any

from finetuned.domain import facts


async def document(client: Any, path: str, status: int = 200) -> Any:
    async with client.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def made(house: Any, name: str, base: str, **lineage: Any) -> str:
    """A job that published and registered a model; its id."""
    job_id: str = await house.accept_job()
    await house.start_attempt()
    await house.report(
        job_id,
        facts.AttemptStarted(attempt=1),
        facts.ArtifactPublished(attempt=1, name="model", kind="adapter", path=f"/x/{name}", bytes=7),
        facts.AttemptModel(
            attempt=1, name=name, path=f"/x/{name}", kind="adapter", base=base, lineage=dict(lineage)
        ),
    )
    await house.end_attempt(job_id)
    return job_id


async def test_a_model_tells_its_bases_jobs_datasets_and_what_was_made_of_it(house: Any, client: Any) -> None:
    first = await made(house, "first", "hub/llama", dataset="/data/rows.jsonl", dataset_sha256="ab" * 32)
    second = await made(house, "second", "first")
    found = await document(client, "/v1/models/second/lineage")
    assert (found["model"]["name"], found["model"]["job"]["id"]) == ("second", second)
    near, far = found["bases"]
    assert (near["name"], near["registered"], near["base"], near["path"]) == (
        "first",
        True,
        "hub/llama",
        "/x/first",
    )
    job = near["job"]
    assert (job["id"], job["kind"], job["state"]) == (first, "fake", "succeeded")
    assert job["datasets"] == [{"name": "/data/rows.jsonl", "version": "ab" * 32}]
    assert [(each["name"], each["bytes"]) for each in job["artifacts"]] == [("model", 7)]
    assert (far["name"], far["registered"], far["job"], far["created_at"]) == ("hub/llama", False, None, None)
    (derived,) = (await document(client, "/v1/models/first/lineage"))["derived"]
    assert (derived["name"], derived["base"], derived["job"]) == ("second", "first", second)


async def test_a_model_that_is_not_there_has_no_lineage(client: Any) -> None:
    error = (await document(client, "/v1/models/nothing/lineage", 404))["error"]
    assert (error["code"], "finetune models" in error["message"]) == ("not_found", True)


async def test_a_job_says_what_makes_sense_next(house: Any, client: Any) -> None:
    done = await made(house, "first", "hub/llama")
    actions = [step["action"] for step in (await document(client, f"/v1/jobs/{done}/next"))["data"]]
    assert actions == ["try", "train_on", "download", "keep"]
    waiting = await house.accept_job()
    steps = (await document(client, f"/v1/jobs/{waiting}/next"))["data"]
    assert [step["action"] for step in steps] == ["watch", "cancel"]
    assert steps[0]["command"] == f"finetune watch {waiting}"


async def test_a_job_that_is_not_there_has_nothing_next(client: Any) -> None:
    error = (await document(client, "/v1/jobs/job-9/next", 404))["error"]
    assert error["code"] == "not_found"
