"""Naming, deleting and auditing datasets, as events and their fold."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.domain.worlds import Scene, submission

from finetuned.domain import dataset_decisions, decisions, facts
from finetuned.domain.errors import NotFoundError, Rejected

A, B = "a" * 64, "b" * 64


def registered(version: str = A, **changes: Any) -> facts.DatasetRegistered:
    values: dict[str, Any] = {
        "name": "colours",
        "version": version,
        "path": f"/store/{version}",
        "bytes": 9,
        "format": "jsonl",
        "source": "upload",
        "rows": 1,
    }
    return facts.DatasetRegistered(**{**values, **changes})


def register(scene: Scene, *args: Any, **changes: Any) -> int:
    fact = registered(*args, **changes)
    return len(scene.fold(dataset_decisions.register(scene.world, fact, actor="uid:1")))


def versions(scene: Scene, name: str = "colours") -> list[str]:
    return [each.version for each in scene.world.datasets[name].versions]


def use(scene: Scene, job_id: str = "job-1", version: str = A) -> None:
    used = {"dataset": {"name": "colours", "version": version, "path": f"/store/{version}"}}
    scene.submit(job_id, datasets=used)


def test_a_version_is_appended_once_and_becomes_the_newest_when_it_comes_again() -> None:
    scene = Scene()
    assert [register(scene, A), register(scene, A), register(scene, B)] == [1, 0, 1]
    assert versions(scene) == [A, B]
    assert register(scene, A) == 1
    assert versions(scene) == [B, A]
    assert scene.world.datasets["colours"].newest.created_by == "uid:1"


def test_content_that_was_uploaded_is_not_replaced_by_a_path_but_a_path_by_content() -> None:
    scene = Scene()
    register(scene, A)
    assert register(scene, A, path="/data/rows", source="path") == 0
    assert scene.world.datasets["colours"].newest.path == f"/store/{A}"

    register(scene, B, path="/data/b", source="path")
    assert register(scene, B, path="/data/moved", source="path") == 1
    assert register(scene, B) == 1
    assert scene.world.datasets["colours"].newest.path == f"/store/{B}"


def test_another_format_of_the_same_content_corrects_the_version() -> None:
    scene = Scene()
    register(scene, A)
    assert register(scene, A, format="csv", path="/store/csv") == 1
    assert versions(scene) == [A]
    assert scene.world.datasets["colours"].newest.format == "csv"


def test_a_name_goes_with_its_last_version() -> None:
    scene = Scene()
    register(scene, A)
    register(scene, B)
    scene.fold(dataset_decisions.delete(scene.world, "colours", [A], actor="uid:1"))
    assert versions(scene) == [B]
    (event,) = scene.fold(dataset_decisions.delete(scene.world, "colours", None, actor="uid:1"))
    assert event.data["versions"] == [B]
    assert scene.world.datasets == {}
    with pytest.raises(NotFoundError, match="finetune datasets"):
        dataset_decisions.delete(scene.world, "colours", None, actor="uid:1")


def test_files_are_in_use_while_a_name_or_a_live_job_needs_them() -> None:
    scene = Scene()
    register(scene, A)
    register(scene, B, name="other")
    use(scene)
    scene.fold(dataset_decisions.delete(scene.world, "colours", None, actor="uid:1"))
    assert sorted(dataset_decisions.paths_in_use(scene.world)) == [f"/store/{A}", f"/store/{B}"]
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
    assert list(dataset_decisions.paths_in_use(scene.world)) == [f"/store/{B}"]


def test_a_job_whose_dataset_went_while_it_was_read_is_rejected() -> None:
    scene = Scene()
    register(scene, A)
    used = {"dataset": {"name": "colours", "version": A, "path": f"/store/{A}"}}
    for gone in ([A], None):
        scene.fold(dataset_decisions.delete(scene.world, "colours", gone, actor="uid:1"))
        with pytest.raises(Rejected, match="upload it again") as caught:
            decisions.submit(scene.world, "job-2", submission(datasets=used), actor="uid:1")
        assert (caught.value.stable_code, caught.value.param) == ("dataset_gone", "params.dataset")
        register(scene, A)
        register(scene, B)


def audit(scene: Scene, sha256: Any, rows: int = 1) -> None:
    if "job-1" not in scene.world.jobs:
        scene.submit()
        scene.schedule()
        scene.start()
    scene.report("job-1", facts.DatasetAudited(report={"sha256": sha256, "rows": rows}))


def test_audits_belong_to_the_content_under_all_its_names() -> None:
    scene = Scene()
    register(scene, A)
    register(scene, B)
    audit(scene, A)
    audit(scene, "c" * 64)
    audit(scene, None)
    register(scene, A, name="same")
    for name in ("colours", "same"):
        found = {each.version: each.audits for each in scene.world.datasets[name].versions}
        assert [each["report"]["rows"] for each in found[A]] == [1]
        assert found.get(B, ()) == ()


def test_the_newest_audits_are_kept_and_survive_the_version_coming_again() -> None:
    scene = Scene()
    register(scene, A)
    for rows in range(30):
        audit(scene, A, rows)
    register(scene, B)
    register(scene, A)
    kept = [each["report"]["rows"] for each in scene.world.datasets["colours"].newest.audits]
    assert kept == list(range(10, 30))
