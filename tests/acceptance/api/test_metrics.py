"""A job's curves over the API."""

from __future__ import annotations

from typing import Any

import pytest

from finetuned.domain import attempt_decisions, facts, verdicts


async def running_job(house: Any) -> str:
    job_id: str = await house.accept_job()
    await house.start_attempt()
    await house.report(job_id, facts.AttemptStarted(attempt=1))
    return job_id


async def steps(house: Any, job_id: str, losses: dict[int, float]) -> None:
    await house.report(
        job_id, *(facts.JobProgress({"current_step": step, "loss": loss}) for step, loss in losses.items())
    )


async def resume(house: Any, job_id: str) -> None:
    await house.end_attempt(job_id, error=True)
    await house.start_attempt()
    await house.report(job_id, facts.AttemptStarted(attempt=2))


async def metrics(client: Any, job_id: str, status: int = 200, **parameters: Any) -> Any:
    async with client.get(f"/v1/jobs/{job_id}/metrics", params=parameters) as response:
        assert response.status == status, await response.text()
        return await response.json()


def values(answer: Any) -> dict[tuple[str, int | None], dict[int, float]]:
    return {
        (each["name"], each["attempt"]): dict(zip(each["steps"], each["values"], strict=True))
        for each in answer["series"]
    }


async def test_each_figure_is_a_series_of_step_time_and_value(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    await steps(house, job_id, {1: 0.5, 2: 0.25})
    scored = facts.EvaluationRecorded(name="held-out", metrics={"accuracy": 0.9}, step=2)
    (last,) = await house.report(job_id, scored)
    answer = await metrics(client, job_id)
    assert answer["names"] == ["evaluation/held-out/accuracy", "loss"]
    assert values(answer) == {
        ("evaluation/held-out/accuracy", None): {2: 0.9},
        ("loss", None): {1: 0.5, 2: 0.25},
    }
    assert (answer["seq"], answer["job"], answer["more"]) == (last.seq, job_id, False)
    assert all(time.endswith("Z") for each in answer["series"] for time in each["times"])


async def test_a_resumed_job_shows_each_step_once_and_every_attempt_on_request(
    house: Any, client: Any
) -> None:
    job_id = await running_job(house)
    await steps(house, job_id, {1: 1.0, 2: 2.0, 3: 3.0})
    assert values(await metrics(client, job_id)) == {("loss", None): {1: 1.0, 2: 2.0, 3: 3.0}}
    await resume(house, job_id)
    # Nothing was done again yet: what was done before still stands.
    assert values(await metrics(client, job_id)) == {("loss", None): {1: 1.0, 2: 2.0, 3: 3.0}}
    await steps(house, job_id, {2: 20.0})
    await steps(house, job_id, {3: 30.0, 4: 40.0})
    first = {1: 1.0, 2: 2.0, 3: 3.0}
    second = {2: 20.0, 3: 30.0, 4: 40.0}
    assert values(await metrics(client, job_id, attempts="all")) == {("loss", 1): first, ("loss", 2): second}
    # It was started anew, without a checkpoint: nothing of the first attempt stands.
    assert values(await metrics(client, job_id)) == {("loss", None): second}


async def test_a_run_that_went_on_from_a_checkpoint_keeps_the_steps_before_it(
    house: Any, client: Any
) -> None:
    job_id = await running_job(house)
    await steps(house, job_id, {1: 1.0, 2: 2.0, 3: 3.0})
    await house.report(
        job_id, facts.CheckpointSaved(attempt=1, step=2, path="/x/checkpoint-2", bytes=1, metrics={})
    )
    end = verdicts.End(exit_code=1, signal=None, lost=None, problem=None, oom_killed=False, usage={})
    await house.log.execute(
        lambda world: attempt_decisions.ended(
            world, job_id, 1, end, attempt_decisions.Prospect(resume_from="/x/checkpoint-2", jitter=0.0)
        )
    )
    await house.start_attempt()
    await steps(house, job_id, {4: 40.0})  # reports are throttled: step 3 was done again and not reported
    assert values(await metrics(client, job_id)) == {("loss", None): {1: 1.0, 2: 2.0, 4: 40.0}}


async def test_a_long_series_is_thinned_without_hiding_its_spike(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    await steps(house, job_id, {step: 100.0 if step == 777 else 1.0 for step in range(1, 2001)})
    (series,) = (await metrics(client, job_id, points=10))["series"]
    assert series["total"] == 2000
    assert len(series["steps"]) <= 12
    assert (777, 100.0) in zip(series["steps"], series["values"], strict=True)
    assert (series["steps"][0], series["steps"][-1]) == (1, 2000)


async def test_only_the_series_that_are_named_are_given(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    await house.report(job_id, facts.JobProgress({"current_step": 1, "loss": 1.0, "entropy": 2.0}))
    answer = await metrics(client, job_id, names="entropy,nothing")
    assert [each["name"] for each in answer["series"]] == ["entropy"]
    assert answer["names"] == ["entropy", "loss"]


async def test_the_past_is_shown_as_it_was(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    (event,) = await house.report(job_id, facts.JobProgress({"current_step": 1, "loss": 1.0}))
    await steps(house, job_id, {2: 2.0})
    assert values(await metrics(client, job_id, at=str(event.seq))) == {("loss", None): {1: 1.0}}
    time = (await metrics(client, job_id, at=str(event.seq)))["series"][0]["times"][0]
    assert values(await metrics(client, job_id, at=time))["loss", None][1] == 1.0
    assert (await metrics(client, job_id, at="2001-01-01T00:00:00+01:00"))["series"] == []


@pytest.mark.parametrize("at", ["yesterday", "2026-01-31T12:00:00", "-1", "99999999999999999999"])
async def test_a_moment_that_is_none_is_refused(house: Any, client: Any, at: str) -> None:
    job_id = await running_job(house)
    error = (await metrics(client, job_id, 400, at=at))["error"]
    assert (error["param"], "2026-01-31T12:00:00Z" in error["message"]) == ("at", True)


@pytest.mark.parametrize(
    ("parameters", "param"),
    [({"points": "3"}, "points"), ({"attempts": "some"}, "attempts"), ({"x": "1"}, "x")],
)
async def test_what_cannot_be_meant_is_refused_by_name(
    house: Any, client: Any, parameters: dict[str, str], param: str
) -> None:
    job_id = await running_job(house)
    assert (await metrics(client, job_id, 400, **parameters))["error"]["param"] == param


async def test_new_steps_are_added_to_what_was_read_before(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    for step in range(1, 6):
        await steps(house, job_id, {step: float(step)})
        expected = {each: float(each) for each in range(1, step + 1)}
        assert values(await metrics(client, job_id)) == {("loss", None): expected}
