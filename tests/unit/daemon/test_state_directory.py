"""The daemon's own directory."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from finetuned import daemon
from finetuned.domain.errors import StartError


def test_others_may_not_look_into_a_state_directory_that_was_made(tmp_path: Path) -> None:
    state = tmp_path / "not" / "there"
    daemon.prepare(state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o750
    assert stat.S_IMODE((state / "jobs").stat().st_mode) == 0o750
    daemon.prepare(state)


def test_one_that_cannot_be_made_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="FINETUNED_STATE_DIR"):
        daemon.prepare(tmp_path / "file" / "state")


def test_the_names_that_lead_to_it_are_on_disk_before_anything_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(daemon, "sync_directory", synced.append)
    state = tmp_path / "not" / "there"
    daemon.prepare(state)
    assert {state, state.parent, tmp_path} <= set(synced)


def test_a_directory_above_it_that_may_not_be_read_stops_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"

    def sync(directory: Path) -> None:
        if directory != state:
            raise PermissionError

    monkeypatch.setattr(daemon, "sync_directory", sync)
    daemon.prepare(state)
    assert (state / "jobs").is_dir()
