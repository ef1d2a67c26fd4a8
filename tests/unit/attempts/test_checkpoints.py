from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import bundle, checkpoints, manifest
from finetuned_sdk.manifest import ManifestError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "checkpoints"
    home.mkdir()
    return home


def made(tmp_path: Path, step: int) -> Path:
    directory = tmp_path / "work" / f"tmp-{step}"
    (directory / "optimizer").mkdir(parents=True)
    (directory / "weights.bin").write_bytes(b"w" * 5000)
    (directory / "optimizer" / "state.bin").write_bytes(b"o" * 3000)
    return directory


def publish(tmp_path: Path, home: Path, step: int) -> Path:
    path, _ = checkpoints.publish(made(tmp_path, step), home, step=step, metrics={"loss": 1.0})
    return path


def test_the_newest_complete_checkpoint_is_chosen_by_step_and_not_by_name(tmp_path: Path, home: Path) -> None:
    paths = [publish(tmp_path, home, step) for step in (9, 100, 20)]
    assert checkpoints.newest_complete(home.iterdir()) == paths[1]
    assert checkpoints.complete(home) == [paths[0], paths[2], paths[1]]


def test_there_is_no_newest_among_none(home: Path) -> None:
    assert checkpoints.newest_complete(home.iterdir()) is None
    assert checkpoints.complete(home / "nowhere") == []


def truncate(path: Path) -> None:
    os.truncate(path / "weights.bin", 10)


def flip(path: Path) -> None:
    (path / "weights.bin").write_bytes(b"x" * 5000)


def remove(path: Path) -> None:
    (path / "optimizer" / "state.bin").unlink()


def unseal(path: Path) -> None:
    (path / "manifest.json").unlink()


def spoil(path: Path) -> None:
    (path / "manifest.json").write_text("{")


def forget_step(path: Path) -> None:
    (path / "manifest.json").write_text('{"files": [], "about": {}}')


@pytest.mark.parametrize("damage", [truncate, flip, remove, unseal, spoil, forget_step])
def test_a_damaged_checkpoint_is_never_chosen(
    tmp_path: Path, home: Path, damage: Callable[[Path], None]
) -> None:
    good = publish(tmp_path, home, 1)
    damage(publish(tmp_path, home, 2))
    assert checkpoints.newest_complete(home.iterdir()) == good


def test_the_newest_checkpoint_of_a_job_is_found_among_its_attempts(tmp_path: Path) -> None:
    attempts = [tmp_path / "attempts" / name for name in ("2", "10", "9", "quarantine-11-1", "12")]
    for attempt in attempts[:-1]:  # the last has none
        (attempt / "checkpoints").mkdir(parents=True)
    first, second, third, aside, _ = (attempt / "checkpoints" for attempt in attempts)
    assert checkpoints.newest_in(attempts) is None
    publish(tmp_path, first, 7)
    newest = publish(tmp_path, second, 7)
    publish(tmp_path, third, 7)
    publish(tmp_path, aside, 7)
    assert checkpoints.newest_in(attempts) == newest
    higher = publish(tmp_path, first, 8)
    assert checkpoints.newest_in(attempts) == higher
    flip(publish(tmp_path, third, 9))
    assert checkpoints.newest_in(attempts) == higher


class Crash(BaseException):
    """The machine stops here."""


class CrashingSystem:
    """Counts the file operations of a publication and crashes before the one with the given number."""

    OPERATIONS = ("fsync", "open", "write", "read", "close", "link", "unlink", "rename", "replace")

    def __init__(self, patch: pytest.MonkeyPatch, crash_at: int) -> None:
        self.count = 0
        self._crash_at = crash_at
        for name in self.OPERATIONS:
            patch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self._crash_at:
                raise Crash
            return operation(*arguments, **options)

        return counted


def crash_points() -> Iterator[int]:
    yield from range(1, 61)


def test_a_crash_at_any_file_operation_leaves_a_complete_checkpoint_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes = 0
    for point in crash_points():
        home = tmp_path / str(point) / "checkpoints"
        home.mkdir(parents=True)
        old = publish(tmp_path / str(point), home, 1)
        directory = made(tmp_path / str(point), 2)
        with monkeypatch.context() as patch:
            system = CrashingSystem(patch, point)
            try:
                checkpoints.publish(directory, home, step=2, metrics={})
            except Crash:
                crashes += 1
        newest = checkpoints.newest_complete(home.iterdir())
        assert newest in {old, home / "checkpoint-2"}
        if newest != old:
            manifest.verify(home / "checkpoint-2")
            if system.count < point:
                break
    else:
        pytest.fail("a publication takes more operations than were tried")
    assert crashes > 10


def test_a_crash_while_a_checkpoint_is_discarded_leaves_it_incomplete(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = publish(tmp_path, home, 1)
    path = publish(tmp_path, home, 2)

    def crash(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(shutil, "rmtree", crash)
    with pytest.raises(Crash):
        checkpoints.discard(path)
    assert checkpoints.newest_complete(home.iterdir()) == good


def test_a_manifest_names_sizes_and_checksums_and_not_itself(tmp_path: Path) -> None:
    directory = made(tmp_path, 1)
    sealed = manifest.seal(directory, step=1)
    assert manifest.seal(directory, step=1) == sealed
    assert [entry.path for entry in sealed.files] == ["weights.bin", "optimizer/state.bin"]
    assert sealed.total_bytes == 8000
    assert manifest.read(directory) == sealed


def test_what_is_not_there_cannot_be_sealed(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is not a file or directory"):
        manifest.seal(tmp_path / "nothing")


def test_sizes_can_be_compared_without_reading(tmp_path: Path, home: Path) -> None:
    path = publish(tmp_path, home, 1)
    flip(path)
    manifest.verify(path, checksums=False)
    with pytest.raises(ManifestError, match="has changed"):
        manifest.verify(path)
    truncate(path)
    with pytest.raises(ManifestError, match="has 10 bytes"):
        manifest.verify(path, checksums=False)


def test_files_are_synced_before_the_rename_and_the_manifest_comes_last(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, fsync, write = bundle.sync_directory, os.fsync, manifest.write
    rename = Path.rename

    def note(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            order.append(name)
            return operation(*arguments, **options)

        return noted

    monkeypatch.setattr(manifest, "sync_directory", note("sync", sync))
    monkeypatch.setattr(checkpoints, "sync_directory", note("sync", sync))
    monkeypatch.setattr(os, "fsync", note("fsync", fsync))
    monkeypatch.setattr(Path, "rename", note("rename", rename))
    monkeypatch.setattr(manifest, "write", note("manifest", write))
    publish(tmp_path, home, 1)
    moved = order.index("rename")
    assert order[:moved].count("fsync") >= 2
    assert "sync" in order[moved : order.index("manifest")]
    assert order.index("manifest") > moved
