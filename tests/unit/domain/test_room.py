from __future__ import annotations

from typing import Any

import pytest
from tests.unit.domain.worlds import Scene

from finetuned.domain import decisions
from finetuned.domain.room import Room
from finetuned.domain.situation import Situation
from finetuned.domain.waits import Waits, wait_of

GB = 1_000_000_000


def situation(**left: int) -> Situation:
    return Situation(room=Room(**{name: size * GB for name, size in left.items()}))


def started(scene: Scene, now: Situation) -> list[str]:
    """Schedule; the jobs that were started."""
    before = {job.id for job in scene.world.live_jobs() if job.live_attempt is not None}
    scene.fold(decisions.schedule(scene.world, elapsed=frozenset(), situation=now))
    return sorted(
        job.id for job in scene.world.live_jobs() if job.live_attempt is not None and job.id not in before
    )


def needing(memory: int = 0, disk: int = 0) -> dict[str, Any]:
    return {"estimate": {"host_bytes": memory * GB, "disk_bytes": disk * GB}}


def test_a_job_that_does_not_fit_now_waits_and_says_what_for() -> None:
    scene = Scene()
    job = scene.submit("job-1", **needing(memory=8))
    now = situation(memory_bytes=16, memory_free_bytes=5)
    assert started(scene, now) == []
    wait = wait_of(job, scene.world.live_jobs(), scene.world.slots.values(), now)
    assert wait is not None
    assert wait.reason == "needs about 8.0 GB of memory; 5.0 GB of 16.0 GB free"
    assert Waits(scene.world.live_jobs(), scene.world.slots.values(), now) == {"job-1": wait}
    assert started(scene, situation(memory_bytes=16, memory_free_bytes=8)) == ["job-1"]


def test_it_does_not_keep_others_from_the_devices() -> None:
    scene = Scene()
    scene.submit("job-1", **needing(memory=8))
    scene.submit("job-2", **needing(memory=1))
    assert started(scene, situation(memory_bytes=16, memory_free_bytes=5)) == ["job-2"]


def test_memory_that_was_promised_is_not_promised_twice() -> None:
    scene = Scene(devices=3)
    for number in (1, 2, 3):
        scene.submit(f"job-{number}", **needing(memory=7))
    now = situation(
        memory_bytes=16, memory_free_bytes=16
    )  # those that were started have not taken theirs yet
    assert started(scene, now) == ["job-1", "job-2"]
    assert started(scene, now) == []
    waits = Waits(scene.world.live_jobs(), scene.world.slots.values(), now)
    assert waits["job-3"].reason.endswith("16.0 GB of 16.0 GB free, 14.0 GB promised to jobs that run")


def test_disk_for_the_checkpoints_is_waited_for() -> None:
    scene = Scene()
    job = scene.submit("job-1", **needing(disk=5))
    now = situation(memory_bytes=1, memory_free_bytes=1, disk_free_bytes=4)
    assert started(scene, now) == []
    wait = wait_of(job, scene.world.live_jobs(), scene.world.slots.values(), now)
    assert wait is not None
    assert wait.reason == "needs about 5.0 GB of disk for its checkpoints and its result; 4.0 GB free"


@pytest.mark.parametrize(
    "changes",
    [{"estimate": None}, {"estimate": {"host_bytes": None}}, {**needing(memory=8), "ignores_estimate": True}],
)
def test_a_job_without_an_estimate_and_one_that_knows_better_start(changes: dict[str, Any]) -> None:
    scene = Scene()
    scene.submit("job-1", **changes)
    assert started(scene, situation(memory_bytes=2, memory_free_bytes=1)) == ["job-1"]


def test_where_nobody_looked_everything_fits() -> None:
    scene = Scene()
    scene.submit("job-1", **needing(memory=800))
    assert started(scene, Situation()) == ["job-1"]
