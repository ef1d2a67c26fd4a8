from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from tests.unit.domain.worlds import Scene, submission

from finetuned.domain import facts
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.job import Job
from finetuned.domain.room import Room
from finetuned.domain.situation import Situation
from finetuned.estimates import checks, dry_run, history
from finetuned.job_request import JobRequest
from finetuned.submission import prepare, resolve
from finetuned_sdk import Device, Estimate, Host, JobKind, RefusedError, Registry

GB = 1_000_000_000


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    batch: int = 8
    passes: int = 1
    length: int = 1024
    disk: int = 1


def estimate(params: Params, _host: Host) -> Estimate:
    size = params.batch * params.length * GB // 1024
    return Estimate(host_bytes=size, disk_bytes=params.disk * GB, breakdown={"activations": size})


def alternatives(params: Params, _host: Host) -> Iterator[list[Mapping[str, Any]]]:
    yield [{"batch": rows, "passes": 8 // rows} for rows in (4, 2, 1)]
    yield [{"length": 13}, {"length": 512}, {"length": 256}]


def check(params: Params, _host: Host) -> None:
    if params.length == 13:
        raise RefusedError("No such length.", param="length")


KIND = JobKind(
    name="train",
    summary="",
    params=Params,
    entry="m:f",
    check=check,
    estimate=estimate,
    alternatives=alternatives,
    speed_params=("batch", "length"),
)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.job_kind(KIND)
    return registry


def host(memory: int = 0, **known: Any) -> Host:
    return Host(memory_bytes=memory * GB, **known)


def refusal(registry: Registry, known: Host, **request: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        resolve(JobRequest(kind="train", **request), registry, known)
    return caught.value


def test_a_job_that_clearly_cannot_fit_is_refused_with_what_would(registry: Registry) -> None:
    error = refusal(registry, host(memory=3))
    assert (error.stable_code, error.param) == ("does_not_fit", "params")
    assert error.message == (
        "The job would take about 8.0 GB of memory and 3.0 GB are there. It would fit with batch=2, passes=4"
        " (about 2.0 GB); or with length=256 (about 2.0 GB). If the estimate is wrong, submit it with ignores_estimate."
    )


def test_what_a_refusal_proposes_is_accepted(registry: Registry) -> None:
    for changes in ({"batch": 2, "passes": 4}, {"length": 256}):
        resolve(JobRequest(kind="train", params=changes), registry, host(memory=3))


def test_a_refusal_without_a_way_out_says_so(registry: Registry) -> None:
    small = Host(memory_bytes=GB // 10)
    assert "No setting that trains the same makes it fit" in refusal(registry, small).message


def test_who_knows_better_is_believed(registry: Registry) -> None:
    fact = resolve(JobRequest(kind="train", ignores_estimate=True), registry, host(memory=3))
    assert fact.ignores_estimate
    assert fact.estimate is not None
    assert fact.estimate["host_bytes"] == 8 * GB


def test_the_jobs_own_limit_is_all_that_it_may_take(registry: Registry) -> None:
    assert refusal(registry, host(memory=100), limits={"memory": 3 * GB}).stable_code == "does_not_fit"
    assert refusal(registry, host(disk_free_bytes=9 * GB), params={"disk": 2}, limits={"disk": GB})


@pytest.mark.parametrize(
    ("memory", "free", "verdict", "sentence"),
    [
        (11, 11, checks.OK, "It will take about 8.0 GB of memory of 11.0 GB."),
        (9, 9, checks.WARNING, "which is tight"),
        (7, 7, checks.WARNING, "which is tight"),
        (16, 4, checks.WARNING, "4.0 GB of 16.0 GB are free now: it may have to wait"),
        (5, 5, checks.REFUSED, "8.0 GB of memory and 5.0 GB are there"),
    ],
)
def test_memory_is_refused_only_beyond_what_the_estimate_may_be_off_by(
    memory: int, free: int, verdict: str, sentence: str, registry: Registry
) -> None:
    known = host(memory=memory, memory_free_bytes=free * GB)
    (found,) = (
        each for each in prepare(JobRequest(kind="train"), registry, known).checks if "memory" in each.name
    )
    assert (found.verdict, found.name) == (verdict, "host_memory")
    assert sentence in found.message
    assert found.figures["needed"] == 8 * GB


def test_disk_that_is_not_free_is_refused_with_both_sizes(registry: Registry) -> None:
    error = refusal(registry, host(disk_free_bytes=4 * GB), params={"disk": 5})
    assert error.stable_code == "disk_full"
    assert "may need 5.0 GB of disk and 4.0 GB are free. Make room" in error.message
    resolve(JobRequest(kind="train", params={"disk": 5}), registry, host(disk_free_bytes=6 * GB))
    resolve(JobRequest(kind="train", params={"disk": 5}), registry, host())  # not known


def test_gpu_memory_is_compared_with_the_largest_gpu() -> None:
    gpus = tuple(Device(id=f"gpu:{n}", kind="gpu", name="", memory_bytes=n * 8 * GB) for n in (1, 3))
    known = Host(devices=gpus)
    assert checks.worst(checks.examine(Estimate(device_bytes=15 * GB), known, {})) == checks.OK
    (found, *_) = checks.examine(Estimate(device_bytes=40 * GB), known, {})
    assert (found.name, found.verdict) == ("device_memory", checks.REFUSED)
    assert found.figures == {"needed": 40 * GB, "available": 24 * GB}


def test_what_nobody_knows_is_called_unknown_and_stops_nobody() -> None:
    found = checks.examine(Estimate(), host(memory=1), {})
    assert {each.verdict for each in found} == {checks.UNKNOWN}
    assert checks.worst(found) == checks.OK


def test_more_than_a_slots_share_is_warned_of() -> None:
    slots = tuple(Device(id=f"cpu:{n}", kind="cpu", name="", memory_bytes=8 * GB) for n in range(2))
    found = checks.examine(Estimate(host_bytes=9 * GB), host(memory=16, devices=slots), {})
    assert ("slot_memory", checks.WARNING) in [(each.name, each.verdict) for each in found]


class TestHistory:
    def job(self, wall_s: float = 100.0, steps: int | None = 50, device: str = "cpu:0", **params: Any) -> Job:
        scene = Scene()
        job = scene.submit(kind="train", params=params)
        scene.schedule()
        scene.start()
        attempt = replace(scene.world.jobs[job.id].attempts[-1], wall_s=wall_s, devices=[device])
        return replace(
            scene.world.jobs[job.id],
            attempts=(attempt,),
            progress=None if steps is None else {"current_step": steps},
        )

    def foretold(
        self, *ended: Job, steps: int | None = 200, declared: float | None = None
    ) -> history.Duration:
        return history.foretell(
            KIND, Params(batch=4), steps=steps, device="cpu", declared=declared, ended=ended
        )

    def test_similar_jobs_tell_the_pace(self) -> None:
        found = self.foretold(self.job(batch=4), self.job(100.0, 25, batch=4), self.job(100.0, 40, batch=4))
        assert (found.seconds, found.source, found.jobs) == (500.0, "history", 3)

    @pytest.mark.parametrize(
        "other",
        [
            {"batch": 8},
            {"batch": 4, "length": 1},
            {"batch": 4, "device": "gpu:1"},
            {"batch": 4, "steps": None},
        ],
    )
    def test_others_do_not(self, other: dict[str, Any]) -> None:
        assert self.foretold(self.job(**other)).seconds is None

    def test_a_job_that_began_at_anothers_checkpoint_tells_no_pace(self) -> None:
        """It ran the last 10 of its 50 steps."""
        retried = self.job(20.0, 50, batch=4)
        begun = tuple(replace(run, resume_from="/checkpoint-40") for run in retried.attempts)
        assert self.foretold(replace(retried, attempts=begun)).seconds is None
        assert self.foretold(replace(retried, attempts=begun), self.job(batch=4)).seconds == 400.0

    def test_a_job_that_went_on_from_its_own_checkpoint_tells_the_pace_of_all_its_runs(self) -> None:
        job = self.job(50.0, 50, batch=4)
        again = replace(job.attempts[0], number=2, resume_from="/checkpoint-20")
        assert self.foretold(replace(job, attempts=(*job.attempts, again))).seconds == 400.0

    def test_without_steps_nothing_is_foretold(self) -> None:
        assert self.foretold(self.job(batch=4), steps=None) == history.Duration()

    def test_what_the_kind_declares_counts(self) -> None:
        assert self.foretold(self.job(batch=4), declared=7.0) == history.Duration(
            seconds=7.0, source="kind", steps=200
        )


class TestStart:
    def test_a_free_device_starts_it_at_once(self) -> None:
        scene = Scene()
        start = dry_run.start_of(submission(validates=False), scene.world, Situation(), now=scene.now)
        assert (start.now, start.devices, start.reason, start.position) == (True, ("cpu:0",), None, 1)

    def test_it_waits_behind_others(self) -> None:
        scene = Scene()
        scene.submit("job-1")
        scene.schedule()
        scene.submit("job-2")
        start = dry_run.start_of(submission(), scene.world, Situation(), now=scene.now)
        assert (start.now, start.reason, start.position) == (False, "behind job-2, which is next", 2)
        assert len(scene.world.jobs) == 2

    def test_it_waits_for_memory(self) -> None:
        fact = replace(submission(), estimate={"host_bytes": 8 * GB})
        room = Room(memory_bytes=16 * GB, memory_free_bytes=2 * GB)
        start = dry_run.start_of(fact, Scene().world, Situation(room=room), now=1)
        assert start.reason == "needs about 8.0 GB of memory; 2.0 GB of 16.0 GB free"


def test_what_is_tight_is_told_in_the_jobs_timeline() -> None:
    scene = Scene()
    from finetuned.domain import decisions

    advice = facts.JobAdvice(setting="host_memory", message="tight", figures={"needed": 8 * GB})
    scene.fold(decisions.submit(scene.world, "job-1", submission(), actor="a", advice=[advice]))
    assert [each["setting"] for each in scene.world.jobs["job-1"].advice] == ["host_memory"]
