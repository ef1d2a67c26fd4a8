"""What is made of a job's leftovers is recorded in the transaction that ends it, and never without its end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.domain.worlds import Scene

from finetuned.domain import attempt_decisions, decisions, facts, salvage, verdicts
from finetuned.domain.attempt_decisions import Prospect
from finetuned.domain.salvage import Fate, Salvage, SalvageDueError

MADE = facts.ArtifactPublished(attempt=1, name="out.jsonl", kind="file:batch_output", path="/x", bytes=3)
FIGURES = facts.JobProgress({"current_step": 2})
KILLED = verdicts.End(exit_code=None, signal=9, lost=None, problem=None, oom_killed=False, usage={})
PROSPECT = Prospect(salvaged=Salvage([FIGURES, MADE]))


def running() -> Scene:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.start()
    return scene


def test_what_was_salvaged_stands_before_the_end_and_becomes_a_file_with_it() -> None:
    scene = running()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a", reason="enough"))
    events = attempt_decisions.ended(scene.world, "job-1", 1, KILLED, PROSPECT)
    told = [each.type for each in events if each.stream.startswith(("job/", "file/"))]
    assert told == ["attempt.ended", "job.progress", "artifact.published", "job.cancelled", "file.created"]


def test_an_end_without_success_waits_until_somebody_has_looked() -> None:
    scene = running()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a"))
    with pytest.raises(SalvageDueError):
        attempt_decisions.ended(scene.world, "job-1", 1, KILLED, replace(PROSPECT, salvaged=None))


def test_a_job_that_goes_on_needs_no_salvage_and_records_none() -> None:
    scene = running()
    for prospect in (PROSPECT, replace(PROSPECT, salvaged=None)):
        events = attempt_decisions.ended(scene.world, "job-1", 1, KILLED, prospect)
        assert "artifact.published" not in {each.type for each in events}
        assert "job.queued" in {each.type for each in events}


def test_a_cancel_that_ends_a_job_at_once_takes_the_salvage_along() -> None:
    scene = Scene()
    scene.submit()
    with pytest.raises(SalvageDueError):
        decisions.cancel(scene.world, "job-1", actor="a", salvaged=None)
    events = decisions.cancel(scene.world, "job-1", actor="a", salvaged=Salvage([MADE]))
    assert [each.type for each in events] == [
        "job.cancel_requested",
        "artifact.published",
        "job.cancelled",
        "file.created",
    ]


def test_a_cancel_of_a_running_job_needs_no_salvage_yet() -> None:
    scene = running()
    events = decisions.cancel(scene.world, "job-1", actor="a", salvaged=None)
    assert [each.type for each in events] == ["job.cancel_requested"]


def test_the_fate_says_whether_it_was_cancelled_and_why() -> None:
    scene = Scene()
    job = scene.submit()
    events = decisions.cancel(scene.world, "job-1", actor="a", reason="enough")
    assert salvage.fate(job, events) == Fate(was_cancelled=True, reason="enough")
    assert salvage.fate(job, []) is None


def test_a_salvage_for_another_end_is_made_anew() -> None:
    scene = running()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a", reason="enough"))
    for_failure = Salvage([MADE], Fate(was_cancelled=False, reason="it broke"))
    with pytest.raises(SalvageDueError):
        attempt_decisions.ended(scene.world, "job-1", 1, KILLED, replace(PROSPECT, salvaged=for_failure))
    for_this = Salvage([MADE], Fate(was_cancelled=True, reason="enough"))
    events = attempt_decisions.ended(scene.world, "job-1", 1, KILLED, replace(PROSPECT, salvaged=for_this))
    assert "job.cancelled" in {each.type for each in events}
