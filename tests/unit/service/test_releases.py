from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from finetuned.attempts import identity
from finetuned.service import releases
from finetuned.service.releases import MakeRelease, interpreters_in_use, place, prunable
from finetuned.service.sources import Source
from finetuned.service.steps import Run, StepError
from finetuned_sdk.bundle import Bundle, ExitRecord, RunnerIdentity, Spec

SOURCE = Source("finetuned==1.0", "1.0", "abc")


def whole(path: Path, fingerprint: str) -> Path:
    path.mkdir(parents=True)
    (path / "release.json").write_text(json.dumps({"version": "1.0", "fingerprint": fingerprint}))
    return path


def test_a_release_goes_where_its_version_says(tmp_path: Path) -> None:
    assert place(tmp_path, SOURCE) == tmp_path / "1.0"


def test_the_same_source_is_the_same_release(tmp_path: Path) -> None:
    whole(tmp_path / "1.0", "abc")
    assert place(tmp_path, SOURCE) == tmp_path / "1.0"


def test_another_source_of_that_version_gets_a_place_of_its_own(tmp_path: Path) -> None:
    whole(tmp_path / "1.0", "other")
    whole(tmp_path / "1.0-2", "another")
    assert place(tmp_path, SOURCE) == tmp_path / "1.0-3"
    whole(tmp_path / "1.0-3", "abc")
    assert place(tmp_path, SOURCE) == tmp_path / "1.0-3"


def test_a_release_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "1.0" / "bin").mkdir(parents=True)
    assert place(tmp_path, SOURCE) == tmp_path / "1.0"


def test_a_release_that_is_there_is_not_touched(tmp_path: Path) -> None:
    MakeRelease(whole(tmp_path / "1.0", "abc"), SOURCE, Path("/no/python")).run()
    assert releases.version(tmp_path / "1.0") == "1.0"


def test_what_cannot_be_installed_leaves_a_release_that_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "1.0").mkdir()
    (tmp_path / "1.0" / "left-over").touch()
    with pytest.raises(StepError, match=r"pip install .* ended with 1"):
        MakeRelease(tmp_path / "1.0", SOURCE, Path(sys.executable)).run()
    assert releases.fingerprint(tmp_path / "1.0") is None
    assert not (tmp_path / "1.0" / "left-over").exists()


def test_all_of_a_release_is_on_disk_before_its_record_says_that_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace = Path.replace

    def rename(path: Path, target: Path) -> Path:
        done.append(f"rename {target.name}")
        return replace(path, target)

    monkeypatch.setattr(Run, "run", lambda step: done.append(step.why))
    monkeypatch.setattr(os, "sync", lambda: done.append("sync"))
    monkeypatch.setattr(Path, "replace", rename)
    MakeRelease(tmp_path / "1.0", SOURCE, Path("/no/python")).run()
    assert done == ["make the environment", "install finetuned", "sync", "rename release.json"]
    assert releases.fingerprint(tmp_path / "1.0") == "abc"


def test_releases_are_removed_that_nobody_keeps_or_uses() -> None:
    first, second, third, other = (Path(f"/opt/finetuned/releases/{name}") for name in ("1", "2", "3", "1-2"))
    there = [first, second, third, other]
    assert prunable(there, keep=[third], interpreters=[second / "bin" / "python"]) == [first, other]
    assert prunable(there, keep=[third], interpreters=[first / "bin" / "python"]) == [second, other]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = Bundle(tmp_path / "jobs" / "job-1" / "attempts" / "1")
    made.create(
        Spec(
            job="job-1",
            attempt=1,
            kind="fake",
            entry="a:b",
            params={},
            params_model="a:C",
            interpreter="/r/1/bin/python",
        )
    )
    return made


def used(tmp_path: Path) -> list[str]:
    return [str(path) for path in interpreters_in_use(tmp_path / "jobs")]


def test_an_attempt_whose_runner_has_not_come_yet_uses_its_release(bundle: Bundle, tmp_path: Path) -> None:
    assert used(tmp_path) == ["/r/1/bin/python"]


def test_an_attempt_that_was_given_up_uses_nothing(bundle: Bundle, tmp_path: Path) -> None:
    bundle.revoke()
    assert used(tmp_path) == []


def test_an_attempt_uses_its_release_while_its_runner_lives(bundle: Bundle, tmp_path: Path) -> None:
    bundle.claim(identity.own())
    assert used(tmp_path) == ["/r/1/bin/python"]


def test_an_attempt_whose_runner_is_dead_uses_nothing(bundle: Bundle, tmp_path: Path) -> None:
    dead = RunnerIdentity(boot_id="another boot", pid=os.getpid(), start_time=1, process_group=1)
    bundle.claim(dead)
    assert used(tmp_path) == []


def test_an_attempt_that_has_ended_uses_nothing(bundle: Bundle, tmp_path: Path) -> None:
    bundle.claim(identity.own())
    bundle.write_exit(ExitRecord(exit_code=0, signal=None))
    assert used(tmp_path) == []


def test_an_attempt_of_which_nobody_knows_who_runs_it_keeps_its_release(
    bundle: Bundle, tmp_path: Path
) -> None:
    bundle.runner_path.write_text("{")
    assert used(tmp_path) == ["/r/1/bin/python"]


def test_a_bundle_whose_specification_cannot_be_read_has_no_worker(bundle: Bundle, tmp_path: Path) -> None:
    bundle.spec_path.write_text("{")
    assert used(tmp_path) == []
