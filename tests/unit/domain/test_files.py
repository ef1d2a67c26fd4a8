"""What jobs make becomes files when they end, and files are named, expire and go by events."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.unit.domain.worlds import Scene, submission

from finetuned.domain import dataset_decisions, decisions, dependencies, facts, files
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.files import FileExpiredError, Known, NoSuchFileError

OUTPUT = "/state/jobs/job-1/attempts/1/artifacts/output.jsonl"
ID = files.made_id("job-1", "output.jsonl")
DAY_US = 86_400_000_000


def published(attempt: int = 1, **changes: Any) -> facts.ArtifactPublished:
    values: dict[str, Any] = {"name": "output.jsonl", "kind": "file:batch_output", "path": OUTPUT, "bytes": 7}
    return facts.ArtifactPublished(attempt=attempt, **{**values, **changes})


def running(**changes: Any) -> Scene:
    """``job-1`` runs and has published an output."""
    scene = Scene(devices=2)
    scene.submit(**changes)
    scene.schedule()
    scene.start()
    scene.report("job-1", published())
    return scene


def uploaded(scene: Scene, file_id: str = "file-0123456789", **changes: Any) -> None:
    values: dict[str, Any] = {
        "filename": "rows.jsonl",
        "purpose": "batch",
        "path": f"/state/files/{file_id}/data",
    }
    fact = facts.FileCreated(id=file_id, **{**values, "bytes": 3, **changes})
    scene.fold(files.create(fact, actor="uid:1"))


def test_the_id_of_a_made_file_follows_from_its_job_and_its_name_alone() -> None:
    assert files.made_id("job-1", "output.jsonl") == ID
    assert re.fullmatch(r"file-[0-9a-hjkmnp-tv-z]{10}", ID)
    assert files.is_id(ID)
    assert len({files.made_id(job, name) for job in ("job-1", "job-2") for name in ("a", "b")}) == 4
    assert files.made_id("job-1", "2a") != files.made_id("job-12", "a")


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_a_jobs_end_makes_its_files_in_the_same_transaction(end: str) -> None:
    scene = running(max_attempts=1)
    assert not scene.world.files
    if end == "succeeded":
        scene.report("job-1", facts.AttemptResult(attempt=1, values={}))
        scene.end()
    elif end == "failed":
        scene.end(exit_code=1)
    else:
        scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
        scene.end(exit_code=75)
    assert scene.state() == end
    file = scene.world.files[ID]
    assert (file.purpose, file.filename, file.path, file.bytes) == ("batch_output", "output.jsonl", OUTPUT, 7)
    assert (file.job, file.sha256) == ("job-1", None)
    assert file.expires_at == file.created_at + 30 * DAY_US


def test_a_waiting_job_that_is_cancelled_has_the_files_of_its_earlier_attempt() -> None:
    scene = running()
    scene.end(exit_code=None, signal=9)
    assert scene.state() == "queued"
    assert not scene.world.files
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:7"))
    assert scene.world.files[ID].created_by == "uid:7"


def test_of_two_attempts_that_made_a_file_the_newest_counts_and_other_artifacts_are_no_files() -> None:
    scene = running()
    scene.end(exit_code=None, signal=9)
    scene.schedule()
    scene.start()
    scene.report("job-1", published(2, path=OUTPUT.replace("/1/", "/2/"), bytes=9))
    scene.report("job-1", published(2, name="model", kind="model", path="/m"))
    scene.report("job-1", facts.AttemptResult(attempt=2, values={}))
    scene.end()
    assert list(scene.world.files) == [ID]
    assert scene.world.files[ID].bytes == 9


def test_a_job_may_say_how_long_its_files_are_kept() -> None:
    scene = running(params={"output_expires_after_s": 3600})
    scene.report("job-1", published(name="curve.csv", kind="file:fine-tune-results"))
    scene.end(exit_code=1)
    assert scene.world.job("job-1").is_live
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
    file = scene.world.files[ID]
    assert file.expires_at == file.created_at + 3600 * 1_000_000
    other = running().world
    assert not other.files


def test_results_of_trainings_do_not_expire() -> None:
    scene = running(max_attempts=1)
    scene.report("job-1", published(name="curve.csv", kind="file:fine-tune-results"))
    scene.end(exit_code=1)
    assert scene.world.files[files.made_id("job-1", "curve.csv")].expires_at is None


def test_a_file_that_is_deleted_or_unknown_or_expired_is_told_apart() -> None:
    scene = Scene()
    uploaded(scene)
    uploaded(scene, "file-1111111111", expires_after_s=3600)
    expires_at = scene.world.files["file-1111111111"].expires_at
    assert expires_at is not None
    assert Known(scene.world.files, expires_at - 1).find("file-1111111111").bytes == 3
    with pytest.raises(FileExpiredError, match="upload it again") as expired:
        Known(scene.world.files, expires_at).find("file-1111111111")
    assert expired.value.stable_code == "file_expired"
    with pytest.raises(NoSuchFileError, match="finetune files") as unknown:
        Known(scene.world.files, 0).find("file-2222222222")
    assert unknown.value.stable_code == "file_not_found"
    scene.fold(files.delete(scene.world, "file-0123456789", actor="uid:1"))
    with pytest.raises(NotFoundError):
        files.delete(scene.world, "file-0123456789", actor="uid:1")


def test_expired_files_go_by_events_that_say_so_and_others_stay() -> None:
    scene = Scene()
    uploaded(scene)
    uploaded(scene, "file-1111111111", expires_after_s=3600)
    assert files.expire(scene.world, now=scene.now, actor="retention") == []
    gone = scene.fold(files.expire(scene.world, now=scene.now + 3600 * 1_000_000, actor="retention"))
    assert [(each.stream, each.data["reason"]) for each in gone] == [("file/file-1111111111", "expired")]
    assert list(scene.world.files) == ["file-0123456789"]


def test_a_job_is_not_accepted_with_a_file_that_went_since_its_request_was_read() -> None:
    scene = Scene()
    uploaded(scene)
    used = {
        "dataset": {
            "name": "file-0123456789",
            "version": "0" * 64,
            "path": "/state/files/file-0123456789/data",
        }
    }
    assert decisions.submit(scene.world, "job-2", submission(datasets=used), actor="uid:1")
    scene.fold(files.delete(scene.world, "file-0123456789", actor="uid:1"))
    with pytest.raises(Rejected, match="upload it again") as caught:
        decisions.submit(scene.world, "job-2", submission(datasets=used), actor="uid:1")
    assert (caught.value.stable_code, caught.value.param) == ("file_gone", "params.dataset")


def test_a_live_job_needs_the_content_of_a_file_that_has_lost_its_name() -> None:
    scene = Scene(devices=2)
    uploaded(scene)
    path = "/state/files/file-0123456789/data"
    assert path in set(dataset_decisions.paths_in_use(scene.world))
    used = {"dataset": {"name": "file-0123456789", "version": "0" * 64, "path": path}}
    scene.submit(datasets=used)
    scene.fold(files.delete(scene.world, "file-0123456789", actor="uid:1"))
    assert path in set(dataset_decisions.paths_in_use(scene.world))
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
    assert path not in set(dataset_decisions.paths_in_use(scene.world))


def test_a_job_whose_files_can_be_named_or_are_read_by_a_live_job_stays() -> None:
    scene = running(max_attempts=1)
    scene.end(exit_code=1)
    with pytest.raises(Rejected, match=f"finetune files rm {ID}") as named:
        decisions.delete(scene.world, "job-1", actor="uid:1")
    assert named.value.stable_code == "file_in_use"
    scene.submit("job-2", datasets={"dataset": {"name": ID, "version": "0" * 64, "path": OUTPUT}})
    scene.fold(files.delete(scene.world, ID, actor="uid:1"))
    with pytest.raises(Rejected, match="made from the files") as read:
        decisions.delete(scene.world, "job-1", actor="uid:1")
    assert read.value.stable_code == "job_in_use"
    assert "job-1" in dependencies.needed(scene.world)
    scene.fold(decisions.cancel(scene.world, "job-2", actor="uid:1"))
    assert decisions.delete(scene.world, "job-1", actor="uid:1")
