"""Backups: whole or not there, checked before anything is put back, and never over what is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest
from tests.unit.backups.state import ROWS, State, tampered

from finetuned.attempts import identity
from finetuned.backups import making, manifest, restoring
from finetuned.backups.manifest import Manifest
from finetuned.cli import offline
from finetuned.domain import decisions
from finetuned.domain.errors import Rejected, StorageFullError
from finetuned.store import open_log
from finetuned.wire import VerifyReport
from finetuned_events import lock
from finetuned_sdk.bundle import ATTEMPT_VARIABLE, Bundle


def verify(directory: Path) -> VerifyReport:
    return anyio.run(offline.verify, directory)


def back_up(state: State, destination: Path, *includes: str, configuration: Path | None = None) -> Manifest:
    return making.make(
        state.path,
        destination,
        includes=includes,
        copy_log=lambda path: anyio.run(offline.backup, state.path, path),
        configuration=configuration,
    )


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith((".lock", "-wal", "-shm"))
    }


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.made(tmp_path / "state")


def test_without_a_choice_models_and_datasets_are_listed_and_not_copied(state: State, tmp_path: Path) -> None:
    (state.path / "cache" / "reference-scores").mkdir(parents=True)
    (state.path / "cache" / "reference-scores" / "x.npy").write_bytes(b"can be worked out again")
    made = back_up(state, tmp_path / "backup")
    assert {
        (each.what, each.name.partition("@")[0], each.bytes > 0, each.included) for each in made.listed
    } == {
        ("model", "kept", True, False),
        ("dataset", "rows", True, False),
        ("checkpoint", state.live, True, False),
    }
    assert all(len(each.sha256 or "") == 64 for each in made.listed)
    assert {each.reason for each in made.listed} == {
        f"--include {part} was not given" for part in ("models", "datasets", "checkpoints")
    }
    assert set(files(tmp_path / "backup")) == {
        "manifest.json",
        "events.sqlite",
        f"jobs/{state.live}/attempts/1/spec.json",
    }


def test_what_is_included_comes_back_byte_for_byte(state: State, tmp_path: Path) -> None:
    configuration = tmp_path / "config.toml"
    configuration.write_text("cpu_slots = 1\n")
    made = back_up(
        state, tmp_path / "backup", "models", "datasets", "checkpoints", configuration=configuration
    )
    assert all(each.included for each in made.listed)
    assert (tmp_path / "backup" / "config.toml").read_text() == "cpu_slots = 1\n"
    new = tmp_path / "new"
    assert restoring.restore(tmp_path / "backup", new, verify) == made
    before, after = files(state.path), files(new)
    assert {path: content for path, content in before.items() if path != "events.sqlite"} == {
        path: content for path, content in after.items() if path != "events.sqlite"
    }
    report = verify(new)
    assert (report["ok"], report["head"]) == (True, made.head)
    assert (new.stat().st_mode & 0o777, (new / "events.sqlite").stat().st_mode & 0o777) == (0o750, 0o640)


def test_archives_of_the_log_are_listed_and_come_back_where_they_were(state: State, tmp_path: Path) -> None:
    async def archive() -> Path:
        async with open_log(state.log) as log:
            return (await log.archive(3)).path

    path = anyio.run(archive)
    made = back_up(state, tmp_path / "backup", "archives")
    (listed,) = (each for each in made.listed if each.what == "archive")
    assert (listed.name, listed.included, listed.sha256) == ("events 1 to 3", True, manifest.measure(path)[1])
    restoring.restore(tmp_path / "backup", tmp_path / "new", verify)
    assert (tmp_path / "new" / "archives" / path.name).read_bytes() == path.read_bytes()


def test_an_archive_that_was_moved_beside_the_log_is_copied_from_there(state: State, tmp_path: Path) -> None:
    async def archive() -> Path:
        async with open_log(state.log) as log:
            return (await log.archive(3, tmp_path / "elsewhere.gz")).path

    path = anyio.run(archive)
    (state.path / "archives").mkdir()
    moved = path.rename(state.path / "archives" / path.name)
    made = back_up(state, tmp_path / "backup", "archives")
    (listed,) = (each for each in made.listed if each.what == "archive")
    assert (listed.path, listed.included) == (str(moved), True)
    restoring.restore(tmp_path / "backup", tmp_path / "new", verify)
    assert (tmp_path / "new" / "archives" / path.name).read_bytes() == moved.read_bytes()


def test_all_names_that_lead_to_a_backup_are_synced(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    back_up(state, tmp_path / "a" / "b" / "backup")
    assert {tmp_path / "a" / "b", tmp_path / "a", tmp_path} <= set(synced)


def test_what_lies_outside_or_is_gone_is_listed_with_the_reason(state: State, tmp_path: Path) -> None:
    for path in state.model.iterdir():
        path.unlink()
    state.model.rmdir()
    made = back_up(state, tmp_path / "backup", "models")
    (model,) = (each for each in made.listed if each.what == "model")
    assert (model.included, model.reason) == (False, "it is not there")


@pytest.mark.parametrize("moment", ["listed", "first", "last"])
def test_what_is_removed_while_it_is_copied_is_not_said_to_be_included(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    copy, measure = manifest.copy, manifest.measure

    def remove() -> None:
        shutil.rmtree(state.model, ignore_errors=True)

    def measured_and_gone(path: Path) -> tuple[int, str]:
        if path.is_relative_to(state.model):
            remove()
        return measure(path)

    def copied_and_gone(source: Path, root: Path, path: str) -> manifest.File:
        if not source.is_relative_to(state.model):
            return copy(source, root, path)
        if moment == "first":
            remove()
        done = copy(source, root, path)
        if moment == "last":
            remove()
        return done

    if moment == "listed":
        monkeypatch.setattr(manifest, "measure", measured_and_gone)
    else:
        monkeypatch.setattr(manifest, "copy", copied_and_gone)
    made = back_up(state, tmp_path / "backup", "models", "datasets")
    told = {each.what: (each.included, each.reason) for each in made.listed}
    assert told["model"] == (False, "it was removed meanwhile")
    assert told["dataset"] == (True, None)
    assert restoring.examine(tmp_path / "backup", verify) == made
    assert set(files(tmp_path / "backup")) == {"manifest.json", *(file.path for file in made.files)}
    assert not any("artifacts" in path for path in files(tmp_path / "backup"))


def test_a_backup_does_not_replace_anything(state: State, tmp_path: Path) -> None:
    back_up(state, tmp_path / "backup")
    before = files(tmp_path / "backup")
    with pytest.raises(Rejected, match="name a new directory") as refused:
        back_up(state, tmp_path / "backup")
    assert refused.value.stable_code == "backup_exists"
    assert files(tmp_path / "backup") == before


def test_what_a_backup_that_was_killed_left_is_no_obstacle(state: State, tmp_path: Path) -> None:
    (tmp_path / ".backup.partial" / "jobs").mkdir(parents=True)
    (tmp_path / ".backup.partial" / "events.sqlite").write_bytes(b"half a log")
    back_up(state, tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "state"]
    restoring.examine(tmp_path / "backup", verify)


def test_a_backup_that_does_not_fit_is_refused_with_the_figures(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "SPARE", 1 << 60)
    with pytest.raises(StorageFullError, match=r"needs 1,152,9.* bytes .*are free; include less"):
        back_up(state, tmp_path / "backup", "models")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_what_cannot_be_written_leaves_nothing_behind(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(manifest, "copy", refuse)
    with pytest.raises(Rejected, match=r"No space left on device. Name another place") as refused:
        back_up(state, tmp_path / "backup")
    assert refused.value.stable_code == "backup_failed"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("harm", ["byte", "missing", "log", "head", "manifest", "format", "escape", "none"])
def test_a_backup_that_does_not_hold_is_not_restored(state: State, tmp_path: Path, harm: str) -> None:
    backup, new = tmp_path / "backup", tmp_path / "new"
    made = back_up(state, backup, "datasets")
    rows = backup / state.dataset.relative_to(state.path)
    document = json.loads((backup / "manifest.json").read_bytes())
    match harm:
        case "byte":
            rows.write_bytes(b"H" + ROWS[1:])
        case "missing":
            rows.unlink()
        case "log":
            tampered(backup / "events.sqlite")
            size, digest = manifest.measure(backup / "events.sqlite")
            document["files"][0] |= {"bytes": size, "sha256": digest}
        case "head":
            document["head"]["seq"] += 1
        case "manifest":
            del document["files"]
        case "format":
            document["format"] = 2
        case "escape":
            document["files"][0]["path"] = "../state/events.sqlite"
        case _:
            (backup / "manifest.json").unlink()
    if harm in {"log", "head", "manifest", "format", "escape"}:
        (backup / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(Rejected, match="Take another backup") as refused:
        restoring.restore(backup, new, verify)
    assert refused.value.stable_code == "backup_damaged"
    assert not new.exists()
    assert made.files


def test_a_state_directory_with_something_in_it_is_left_alone(state: State, tmp_path: Path) -> None:
    back_up(state, tmp_path / "backup")
    before = files(state.path)
    with pytest.raises(Rejected, match="--log-only") as refused:
        restoring.restore(tmp_path / "backup", state.path, verify)
    assert refused.value.stable_code == "state_dir_not_empty"
    assert files(state.path) == before


@pytest.mark.parametrize("restore", [restoring.restore, restoring.restore_log])
def test_nothing_is_put_under_a_daemon_that_runs(state: State, tmp_path: Path, restore: object) -> None:
    back_up(state, tmp_path / "backup")
    with lock.held(state.log), pytest.raises(Rejected, match="stop it, and restore then") as refused:
        restore(tmp_path / "backup", state.path, verify)  # type: ignore[operator]
    assert refused.value.stable_code == "daemon_running"


def test_the_former_log_is_set_aside_with_all_its_files(state: State, tmp_path: Path) -> None:
    back_up(state, tmp_path / "backup")
    for name in ("events.sqlite-wal", "events.sqlite-shm"):
        (state.path / name).write_bytes(name.encode())
    former = state.log.read_bytes()
    found, aside = restoring.restore_log(tmp_path / "backup", state.path, verify)
    assert aside is not None
    assert sorted(path.name for path in aside.iterdir()) == [
        "events.sqlite",
        "events.sqlite-shm",
        "events.sqlite-wal",
    ]
    assert (aside / "events.sqlite").read_bytes() == former
    assert not (state.path / "events.sqlite-wal").exists()
    assert state.dataset.read_bytes() == ROWS
    assert verify(state.path)["head"] == found.head


def owners(root: Path) -> set[tuple[int, int]]:
    found = [path.lstat() for path in (root, *root.rglob("*"))]
    return {(each.st_uid, each.st_gid) for each in found}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("exists", [True, False])
def test_what_root_restores_belongs_to_whom_the_state_directory_does(
    state: State, tmp_path: Path, *, exists: bool
) -> None:
    home, daemon = tmp_path / "home", (4242, 4343)
    new = home / "deep" / "new"
    (new if exists else home).mkdir(parents=True)
    os.chown(new if exists else home, *daemon)
    back_up(state, tmp_path / "backup", "models", "datasets", "checkpoints")
    restoring.restore(tmp_path / "backup", new, verify)
    assert owners(new) == {daemon}
    if not exists:
        assert owners(home) == {daemon}
    _, aside = restoring.restore_log(tmp_path / "backup", new, verify)
    assert owners(new) == {daemon}
    assert aside is not None


class Killed(BaseException):
    pass


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int, *calls: tuple[object, str]) -> None:
    """Let the call of that number among these be the last, and not happen."""
    left = step

    def counted(module: object, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    for module, name in calls:
        counted(module, name)


@pytest.mark.parametrize("step", range(1, 40))
def test_a_restore_that_was_killed_is_begun_again(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Pathlib's and the kernel's calls that change something are counted; the kill comes before the one of that number."""
    backup, new = tmp_path / "backup", tmp_path / "new"
    made = back_up(state, backup, "models", "datasets", "checkpoints")
    killed_at(monkeypatch, step, (os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "rmdir"))
    try:
        restoring.restore(backup, new, verify)
    except Killed:
        monkeypatch.undo()
        if not (new / "events.sqlite").exists():
            assert restoring.restore(backup, new, verify) == made
    monkeypatch.undo()
    assert verify(new)["head"] == made.head
    assert (new / state.dataset.relative_to(state.path)).read_bytes() == ROWS
    restored = {path for path in files(new) if not path.startswith(".restoring")}
    assert restored == {file.path for file in made.files}


@pytest.mark.parametrize("step", [1, 2, 3])
def test_whatever_a_restore_that_was_killed_had_put_there_is_put_there_anew(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    async def archive(path: Path) -> None:
        async with open_log(state.log) as log:
            await log.archive(3, path)

    backup, new = tmp_path / "backup", tmp_path / "new"
    anyio.run(archive, state.path / "beginning.gz")
    made = back_up(state, backup, "archives")
    killed_at(monkeypatch, step, (Path, "rename"))
    with pytest.raises(Killed):
        restoring.restore(backup, new, verify)
    monkeypatch.undo()
    assert restoring.restore(backup, new, verify) == made
    assert (new / "beginning.gz").is_file()


@pytest.mark.parametrize("step", range(1, 31))
def test_a_log_only_restore_that_was_killed_leaves_the_former_log_whole_or_the_new_one(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The former log's newest events are in its -wal, as after a kill of its daemon."""

    async def append() -> None:
        async with open_log(state.log) as log:
            await log.execute(lambda _world: decisions.daemon_started("1.0", 1) * 5)
            for name in names:
                shutil.copyfile(state.path / name, tmp_path / name)

    names = ("events.sqlite", "events.sqlite-wal")
    back_up(state, tmp_path / "backup")
    old = verify(state.path)["head"]["seq"]
    anyio.run(append)
    for name in names:
        shutil.copyfile(tmp_path / name, state.path / name)
    calls = ((os, "fsync"), (os, "link"), (Path, "rename"), (Path, "mkdir"), (Path, "unlink"))
    killed_at(monkeypatch, step, *calls)
    try:
        restoring.restore_log(tmp_path / "backup", state.path, verify)
    except Killed:
        monkeypatch.undo()
        report = verify(state.path)
        assert (report["ok"], report["head"]["seq"]) in {(True, old), (True, old + 5)}
        restoring.restore_log(tmp_path / "backup", state.path, verify)
    monkeypatch.undo()
    report = verify(state.path)
    assert (report["ok"], report["head"]["seq"]) == (True, old)
    aside = [
        verify(each)["head"]["seq"] for each in state.path.glob("before-restore-*/") if any(each.iterdir())
    ]
    assert old + 5 in aside


def test_a_copy_is_not_put_beside_the_living_attempts_of_what_it_was_made_of(
    state: State, tmp_path: Path
) -> None:
    backup, new = tmp_path / "backup", tmp_path / "new"
    bundle = Bundle(state.jobs / state.live / "attempts" / "1")
    tag = bundle.read_spec().tag
    with subprocess.Popen(["sleep", "60"], env={ATTEMPT_VARIABLE: tag}) as trainer:
        back_up(state, backup)
        for restore in (restoring.restore, restoring.restore_log):
            with pytest.raises(Rejected, match="Restore on another machine, or once it has ended") as refused:
                restore(backup, new, verify)
            assert refused.value.stable_code == "attempts_running"
        assert not new.exists()
        restoring.restore_log(backup, state.path, verify)  # where they belong
        trainer.kill()
    restoring.restore(backup, new, verify)


def test_a_copy_that_names_a_living_runner_is_put_back_only_where_it_was(
    state: State, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    Bundle(state.jobs / state.live / "attempts" / "1").claim(identity.own())
    back_up(state, backup)
    with pytest.raises(Rejected, match=f"{state.live} of this backup still runs here"):
        restoring.restore(backup, tmp_path / "new", verify)
    state.path.rename(tmp_path / "lost")
    restoring.restore(backup, state.path, verify)
