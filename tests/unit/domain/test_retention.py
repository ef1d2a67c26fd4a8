"""Which files of ended jobs go: by age, by size, oldest first, and never what is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.worlds import Scene

from finetuned.domain import dataset_decisions, decisions, dependencies, facts, retention
from finetuned.domain.errors import Rejected
from finetuned.domain.retention import DAY_US, Kept, Policy
from finetuned.domain.states import JobState

DAYS = Policy(days=30)


def kept(*sizes: int) -> list[Kept]:
    """Jobs that ended one a day, the first of them longest ago."""
    return [Kept(f"job-{number}", number * DAY_US, size) for number, size in enumerate(sizes)]


def names(listed: list[Kept], policy: Policy, *, now: int = 0, needed: int = 0) -> list[str]:
    return [each.kept.job for each in retention.due(listed, policy, now=now, needed=needed)]


def test_without_a_policy_everything_is_kept() -> None:
    assert Policy().keeps_all
    assert names(kept(1, 1), Policy(), now=10**18) == []


def test_what_ended_longer_ago_than_is_kept_goes_with_the_reason() -> None:
    now = 31 * DAY_US + 1
    assert names(kept(1, 1, 1), DAYS, now=now) == ["job-0", "job-1"]
    (first, _) = retention.due(kept(1, 1, 1), DAYS, now=now)
    assert first.reason == "it ended more than 30 days ago (keep_jobs_days)"


def test_beyond_the_size_the_oldest_go_until_the_rest_fits() -> None:
    assert names(kept(5, 1, 4), Policy(bytes=5)) == ["job-0"]
    assert names(kept(5, 1, 4), Policy(bytes=4)) == ["job-0", "job-1"]
    assert names(list(reversed(kept(5, 1, 4))), Policy(bytes=0)) == ["job-0", "job-1", "job-2"]


def test_what_must_stay_counts_and_others_go_for_it() -> None:
    assert names(kept(1, 1), Policy(bytes=10), needed=9) == ["job-0"]


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(0, 500), st.integers(0, 100))
def test_no_more_goes_than_must_and_what_stays_fits(sizes: list[int], most: int, needed: int) -> None:
    listed = kept(*sizes)
    gone = [each.kept for each in retention.due(listed, Policy(bytes=most), now=0, needed=needed)]
    assert gone == listed[: len(gone)]  # the oldest
    left = needed + sum(each.bytes for each in listed[len(gone) :])
    assert left <= most or len(gone) == len(listed)
    if gone:
        assert left + gone[-1].bytes > most


def ended() -> Scene:
    """``job-1`` has ended."""
    scene = Scene(devices=2)
    scene.submit()
    scene.schedule()
    scene.run_to_success()
    return scene


def remove(scene: Scene) -> list[str]:
    events = retention.remove_files(scene.world, "job-1", reason="it is old", size=7, actor="retention")
    return [event.type for event in scene.fold(events)]


def test_the_files_go_once_and_the_job_says_when_and_why() -> None:
    scene = ended()
    scene.world.jobs["job-1"] = replace(scene.world.jobs["job-1"], checkpoints=({"step": 1},))
    assert remove(scene) == ["job.files_removed"]
    job = scene.world.job("job-1")
    assert job.files_removed == {"reason": "it is old", "bytes": 7, "at": scene.now}
    assert (job.state, job.checkpoints) == (JobState.SUCCEEDED, ())
    assert remove(scene) == []


def test_files_of_a_live_job_stay() -> None:
    scene = Scene()
    scene.submit()
    with pytest.raises(Rejected, match="cancel it first") as told:
        remove(scene)
    assert told.value.stable_code == "job_live"


def test_files_that_a_dataset_names_stay_until_the_dataset_goes() -> None:
    scene = ended()
    path = "/state/jobs/job-1/attempts/1/artifacts/rows.jsonl"
    fact = facts.DatasetRegistered(
        name="rows", version="a" * 64, path=path, bytes=1, format="jsonl", source="path", rows=1
    )
    scene.fold(dataset_decisions.register(scene.world, fact, actor="a"))
    assert "job-1" in dependencies.needed(scene.world)
    for removal in (remove, lambda each: decisions.delete(each.world, "job-1", actor="a")):
        with pytest.raises(Rejected, match="finetune datasets rm rows") as told:
            removal(scene)
        assert told.value.stable_code == "dataset_in_use"
    scene.fold(dataset_decisions.delete(scene.world, "rows", None, actor="a"))
    assert "job-1" not in dependencies.needed(scene.world)
    assert remove(scene) == ["job.files_removed"]


def test_files_that_a_live_job_goes_on_from_stay() -> None:
    scene = ended()
    scene.submit("job-2", resume_from="/state/jobs/job-1/attempts/1/checkpoints/checkpoint-4")
    assert "job-1" in dependencies.needed(scene.world)
    with pytest.raises(Rejected):
        remove(scene)


def rejects(scene: Scene, job: str) -> bool:
    try:
        dependencies.require_free(scene.world, job)
    except Rejected:
        return True
    return False


@pytest.mark.parametrize(
    "request_of_another",
    [
        {"resume_from": "/state/jobs/job-1/attempts/1/checkpoints/checkpoint-4"},
        {"resume_from": "/elsewhere/checkpoint-4", "retry_of": "job-1"},
        {"resume_from": "/state/jobs/job-10/attempts/1/checkpoints/checkpoint-4"},
        {},
    ],
)
def test_one_look_at_the_world_finds_the_jobs_whose_removal_is_rejected(
    request_of_another: dict[str, Any],
) -> None:
    scene = ended()
    scene.submit("job-2", **request_of_another)
    found = dependencies.needed(scene.world)
    for job in ("job-1", "job-10", "job-2"):
        assert (job in found) == rejects(scene, job), job
