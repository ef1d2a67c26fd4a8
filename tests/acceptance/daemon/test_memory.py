"""A job that runs out of memory goes on with a smaller batch, on a real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.acceptance.daemon.process import running

PLUGIN = """
from pydantic import BaseModel

from finetuned_sdk import JobKind, hookimpl


class Params(BaseModel):
    batch: int = 4
    accumulation: int = 1
    least: int = 1  # rows of a batch that is still too much
    wrapped: bool = False


def reduce(params):
    if params.batch == 1:
        return None
    return {"batch": params.batch // 2, "accumulation": params.accumulation * 2}


@hookimpl
def finetuned_register(register):
    register.job_kind(
        JobKind(name="hungry", summary="Wants memory.", params=Params, entry="hungry:run", reduce_memory=reduce)
    )


def run(ctx, params):
    ctx.progress(current_step=ctx.attempt, total_steps=9, final=True)
    if params.batch > params.least:
        try:
            raise MemoryError
        except MemoryError as error:
            if not params.wrapped:
                raise
            raise RuntimeError("a loader failed") from error
    ctx.result(batch=params.batch, accumulation=params.accumulation)
"""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "hungry.py").write_text(PLUGIN)
    return {"FINETUNED_EXTRA_PLUGINS": "hungry", "PYTHONPATH": str(tmp_path)}


def test_the_next_attempt_is_told_half_the_batch_and_twice_the_accumulation(plugins: dict[str, str]) -> None:
    with running(**plugins) as daemon:
        job = daemon.wait_for(daemon.submit("hungry", least=2, wrapped=True), timeout=90)
        assert job["state"] == "succeeded", job["error"]
        assert (job["result"]["batch"], job["result"]["accumulation"]) == (2, 2)
        assert job["params"] == {"least": 2, "wrapped": True}  # what was asked for stays as it was
        events = daemon.events(job["id"])
        smaller = {"batch": 2, "accumulation": 2}
        again = [event["data"] for event in events if event["type"] == "job.queued"][-1]
        assert again["overrides"] == smaller
        assert "Out of memory" in again["reason"]
        starts = [event["data"] for event in events if event["type"] == "attempt.starting"]
        assert [start["overrides"] for start in starts] == [{}, smaller]
        (ended, _) = (event["data"] for event in events if event["type"] == "attempt.ended")
        assert ended["failure"] == "out_of_memory"


def test_with_nothing_left_to_halve_the_job_fails_with_what_to_do(plugins: dict[str, str]) -> None:
    with running(**plugins) as daemon:
        job = daemon.wait_for(daemon.submit("hungry", batch=2, least=0), timeout=90)
        assert job["state"] == "failed"
        assert job["error"]["code"] == "out_of_memory"
        assert "Lower per_device_train_batch_size" in job["error"]["message"]
        assert job["attempt"] == 2
