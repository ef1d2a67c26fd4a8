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
