"""Requests that are sent twice: carried out once by their ``Idempotency-Key``, and answered shortly by their ETag."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from finetuned.commands.appending import Appending
from finetuned.domain import decisions, facts
from finetuned.domain.idempotency import IdempotencyKeyReusedError, Once, once
from finetuned.domain.registers import KEPT_REQUESTS_US
from finetuned_sdk import JobKind

KEY = {"Idempotency-Key": "9d1f"}


async def job_count(house: Any) -> int:
    return len((await house.log.scan(after=0, limit=1000, types={"job.submitted"})).events)


async def refusal(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status == status, await response.text()
    error: dict[str, Any] = (await response.json())["error"]
    assert error["code"] == code
    return error


async def test_a_submission_that_is_repeated_with_its_key_makes_one_job(house: Any, client: Any) -> None:
    body = {"kind": "fake", "params": {"steps": 3}}
    first = await client.post("/v1/jobs", json=body, headers=KEY)
    again = await client.post("/v1/jobs", json=body, headers=KEY)
    assert (first.status, again.status) == (201, 201)
    assert (await first.json())["id"] == (await again.json())["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await job_count(house) == 1


async def test_without_a_key_each_submission_is_a_job(house: Any, client: Any) -> None:
    for _ in range(2):
        assert (await client.post("/v1/jobs", json={"kind": "fake"})).status == 201
    assert await job_count(house) == 2


async def test_a_hundred_submissions_at_once_with_one_key_make_one_job(house: Any, client: Any) -> None:
    found: list[str] = []

    async def send() -> None:
        response = await client.post("/v1/jobs", json={"kind": "fake"}, headers=KEY)
        found.append((await response.json())["id"])

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(send)
    assert len(found) == 100
    assert len(set(found)) == 1
    assert await job_count(house) == 1


async def test_the_key_and_the_job_stand_in_one_transaction(house: Any, client: Any) -> None:
    await client.post("/v1/jobs", json={"kind": "fake"}, headers=KEY)
    events = (await house.log.scan(after=0, limit=100)).events
    (submitted,) = [event for event in events if event.type == "job.submitted"]
    (accepted,) = [event for event in events if event.type == "request.accepted"]
    assert accepted.seq == submitted.seq + 1
    assert accepted.data["subject"] == submitted.stream
    assert "9d1f" not in str(accepted.data)


async def test_a_key_with_another_body_is_refused(house: Any, client: Any) -> None:
    await client.post("/v1/jobs", json={"kind": "fake"}, headers=KEY)
    response = await client.post("/v1/jobs", json={"kind": "fake", "priority": 1}, headers=KEY)
    error = await refusal(response, 422, IdempotencyKeyReusedError.code)
    assert "use a new key" in error["message"]
    assert await job_count(house) == 1


async def test_a_refused_request_leaves_its_key_free(client: Any) -> None:
    await refusal(await client.post("/v1/jobs", json={"kind": "nope"}, headers=KEY), 400, "unknown_kind")
    assert (await client.post("/v1/jobs", json={"kind": "fake"}, headers=KEY)).status == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
async def test_a_key_that_is_none_is_refused(client: Any, key: str) -> None:
    response = await client.post("/v1/jobs", json={"kind": "fake"}, headers={"Idempotency-Key": key})
    await refusal(response, 400, "invalid_request")


async def test_a_cancel_that_is_repeated_after_the_job_ended_is_answered_as_before(client: Any) -> None:
    job = await (await client.post("/v1/jobs", json={"kind": "fake"})).json()
    path = f"/v1/jobs/{job['id']}/cancel"
    first = await client.post(path, json={}, headers=KEY)
    again = await client.post(path, json={}, headers=KEY)
    assert ((await first.json())["state"], (await again.json())["state"]) == ("cancelled", "cancelled")
    assert again.headers["Idempotency-Replayed"] == "true"
    await refusal(await client.post(path, json={}), 409, "job_ended")


async def test_the_secret_of_a_token_is_not_shown_to_a_repetition(client: Any) -> None:
    made = await client.post("/v1/tokens", json={"scope": "read"}, headers=KEY)
    assert made.status == 201
    again = await client.post("/v1/tokens", json={"scope": "read"}, headers=KEY)
    error = await refusal(again, 409, "secret_shown_once")
    assert (await made.json())["id"] in error["message"]


async def test_a_key_is_remembered_over_a_restart(open_house: Any, open_client: Any) -> None:
    async with open_house() as house, open_client(house) as client:
        first = await (await client.post("/v1/jobs", json={"kind": "fake"}, headers=KEY)).json()
    async with open_house() as house, open_client(house) as client:
        again = await (await client.post("/v1/jobs", json={"kind": "fake"}, headers=KEY)).json()
        assert again["id"] == first["id"]
        assert await job_count(house) == 1


async def test_a_retry_that_is_repeated_after_the_old_job_was_deleted_is_answered_as_before(
    house: Any, client: Any
) -> None:
    old = (await (await client.post("/v1/jobs", json={"kind": "fake"})).json())["id"]
    await client.post(f"/v1/jobs/{old}/cancel", json={})
    first = await client.post(f"/v1/jobs/{old}/retry", json={}, headers=KEY)
    assert (await client.delete(f"/v1/jobs/{old}")).status == 200
    again = await client.post(f"/v1/jobs/{old}/retry", json={}, headers=KEY)
    assert (first.status, again.status) == (201, 201)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await first.json())["id"] == (await again.json())["id"]
    assert await job_count(house) == 2


async def test_an_audit_that_is_repeated_after_its_dataset_was_deleted_is_answered_as_before(
    house: Any, client: Any
) -> None:
    class Params(BaseModel):
        model: str
        dataset: str

    kind = JobKind(
        name="audit", summary="Reads.", params=Params, entry="fake:run", dataset_params=("dataset",)
    )
    house.commands.registry.job_kind(kind)
    await client.post("/v1/datasets", params={"name": "chats"}, data=b'{"prompt": "a"}\n')
    body = {"model": "owner/name", "kind": "audit"}
    first = await client.post("/v1/datasets/chats/audit", json=body, headers=KEY)
    assert first.status == 201, await first.text()
    assert (await client.delete("/v1/datasets/chats")).status == 200
    again = await client.post("/v1/datasets/chats/audit", json=body, headers=KEY)
    assert again.status == 201
    assert (await first.json())["id"] == (await again.json())["id"]


async def test_an_upload_that_is_repeated_shows_the_dataset_as_it_is_now(client: Any) -> None:
    query = {"name": "chats"}
    first = await client.post("/v1/datasets", params=query, data=b'{"prompt": "a"}\n', headers=KEY)
    await client.post("/v1/datasets", params=query, data=b'{"prompt": "b"}\n')
    again = await client.post("/v1/datasets", params=query, data=b'{"prompt": "a"}\n', headers=KEY)
    assert (first.status, again.status) == (201, 200)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len((await again.json())["versions"]) == 2
    await client.delete("/v1/datasets/chats")
    gone = await client.post("/v1/datasets", params=query, data=b'{"prompt": "a"}\n', headers=KEY)
    await refusal(gone, 404, "not_found")


async def test_a_key_is_free_again_after_a_day(house: Any) -> None:
    def ask(now: int) -> tuple[Appending, Once]:
        return Appending(house.log, house.commands.appending.board, lambda: now), once(
            "uid:1", "a key", b"what is asked"
        )

    async def execute(now: int) -> bool:
        appending, request = ask(now)
        await appending.execute(
            lambda _world: decisions.set_secret(facts.SecretSet(name="s"), actor="a"),
            subject="secret/s",
            actor="a",
            once=request,
        )
        return request.replayed

    start = time.time_ns() // 1000
    assert not await execute(start)
    assert await execute(start + KEPT_REQUESTS_US - 60_000_000)
    appending, request = ask(start + KEPT_REQUESTS_US - 60_000_000)
    assert await appending.earlier(request) == "secret/s"
    late = start + KEPT_REQUESTS_US + 60_000_000
    appending, request = ask(late)
    assert await appending.earlier(request) is None
    assert not await execute(late)


async def test_what_did_not_change_is_answered_with_304(client: Any) -> None:
    job = await (await client.post("/v1/jobs", json={"kind": "fake"})).json()
    for path in (f"/v1/jobs/{job['id']}", "/v1/jobs", "/v1/devices", "/v1/kinds"):
        first = await client.get(path)
        tag = first.headers["ETag"]
        again = await client.get(path, headers={"If-None-Match": tag})
        assert again.status == 304
        assert again.headers["ETag"] == tag
        assert await again.read() == b""


async def test_a_job_that_changed_has_another_etag(client: Any) -> None:
    job = await (await client.post("/v1/jobs", json={"kind": "fake"})).json()
    path = f"/v1/jobs/{job['id']}"
    tag = (await client.get(path)).headers["ETag"]
    await client.post("/v1/tokens", json={"scope": "read"})  # something else happened
    assert (await client.get(path, headers={"If-None-Match": tag})).status == 304
    await client.post(f"{path}/cancel", json={})
    changed = await client.get(path, headers={"If-None-Match": tag})
    assert changed.status == 200
    assert (await changed.json())["state"] == "cancelled"
