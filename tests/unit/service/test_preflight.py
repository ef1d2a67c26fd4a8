from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finetuned.config import Config
from finetuned.domain.errors import StartError
from finetuned.preflight import check
from finetuned.store import open_log
from finetuned_events import EventLog, NewEvent, NoState


def config(state_dir: Path) -> Config:
    return Config(state_dir=state_dir)


def test_a_daemon_could_start_where_there_is_no_log_yet(tmp_path: Path) -> None:
    assert f"There is no log at {tmp_path}/events.sqlite yet." in check(config(tmp_path))


async def test_the_log_of_a_running_daemon_can_be_checked(tmp_path: Path) -> None:
    async with open_log(tmp_path / "events.sqlite"):
        assert f"The log {tmp_path}/events.sqlite is understood." in check(config(tmp_path))


async def test_a_log_of_a_newer_release_is_refused_with_the_remedy(tmp_path: Path) -> None:
    log: EventLog[NoState]
    async with EventLog.open(tmp_path / "events.sqlite") as log:
        await log.append([NewEvent("job/1", "job.from_the_future", {}, actor="test")])
    with pytest.raises(StartError, match=r"job\.from_the_future 1.*too old for it: take one at least as new"):
        check(config(tmp_path))


def test_a_file_that_is_no_log_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite").write_text(
        "no database, but text that is long enough to be read as one" * 100
    )
    with pytest.raises(StartError, match=r"cannot be opened: .*restore a backup"):
        check(config(tmp_path))


def finetuned(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetuned", "--check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_checks_and_starts_nothing(tmp_path: Path) -> None:
    done = finetuned("--state-dir", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.startswith(f"The configuration is good; the state directory is {tmp_path}.")
    assert "Plugin sft: loaded." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_program_says_what_is_wrong_and_exits_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("lisen = ''\n")
    done = finetuned("--config", str(tmp_path / "config.toml"))
    assert done.returncode == 78
    assert "'lisen' is not a known key" in done.stderr
