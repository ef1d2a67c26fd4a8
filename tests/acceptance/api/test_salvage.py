"""A job that leaves something is cancelled twice at once: what is made of it is made once."""

from __future__ import annotations

import threading
from pathlib import Path

import aiohttp
import anyio

from finetuned.testing import House
from finetuned_sdk import JobKind
from finetuned_sdk.fake import FakeParams
from finetuned_sdk.salvage import Leftovers, Salvaged

from .conftest import Until


async def test_two_cancels_at_once_make_one_file_which_is_as_the_log_says(
    house: House, client: aiohttp.ClientSession, until: Until
) -> None:
    began, go_on = [], threading.Event()

    def salvage(left: Leftovers) -> Salvaged:
        began.append(left.reason)
        assert go_on.wait(60)
        left.artifacts.mkdir(parents=True, exist_ok=True)
        made = left.artifacts / "left.jsonl"
        made.write_text(f"{left.reason}\n", encoding="utf-8")
        return Salvaged(artifacts=((made, "file:batch_output"),))

    kind = JobKind(name="leaving", summary="-", entry="none:none", params=FakeParams, salvage=salvage)
    house.commands.registry.job_kind(kind)
    answer = await client.post("/v1/jobs", json={"kind": "leaving", "params": {}})
    job_id = (await answer.json())["id"]
    statuses: dict[str, int] = {}

    async def cancel(reason: str) -> None:
        async with client.post(f"/v1/jobs/{job_id}/cancel", json={"reason": reason}) as answer:
            statuses[reason] = answer.status

    turn = house.commands.salvager.turn(job_id)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel, "first")
        await until(lambda: began)
        tasks.start_soon(cancel, "second")
        await until(lambda: turn.statistics().tasks_waiting)
        go_on.set()
    assert began == ["first"]
    assert statuses == {"first": 200, "second": 409}
    (artifact,) = (await house.queries.job(job_id)).artifacts
    content = await anyio.Path(Path(artifact["path"])).read_bytes()
    assert content == b"first\n"
    assert artifact["bytes"] == len(content)
