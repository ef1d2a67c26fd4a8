"""What the command line refuses by itself: each with its code, exit code and remedy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from finetuned.cli import log, metrics, offline, results, service
from finetuned.demo import walk
from finetuned.domain.errors import FinetunedError
from finetuned.service import releases
from finetuned.service.layout import Scope, find_layout
from finetuned.store import open_log


def refused(do: Callable[[], object]) -> tuple[str, int, str]:
    with pytest.raises(FinetunedError) as told:
        do()
    return told.value.stable_code, told.value.exit_code, told.value.message


async def test_a_log_that_a_daemon_has_open_is_left_to_it(tmp_path: Path) -> None:
    async with open_log(tmp_path / "events.sqlite"):
        with pytest.raises(FinetunedError, match="leave --state-dir out") as told:
            await offline.rebuild(tmp_path)
    assert (told.value.stable_code, told.value.exit_code) == ("daemon_running", 4)


def test_a_demo_whose_job_fails_says_why() -> None:
    job: Any = {
        "state": "failed",
        "name": "bakery",
        "kind": "sft",
        "error": {"message": "No room; free some."},
    }
    code, exit_code, message = refused(lambda: walk._succeeded(job))
    assert (code, exit_code) == ("demo_failed", 1)
    assert "free some" in message


def test_files_are_not_brought_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    code, exit_code, message = refused(lambda: results._must_be_a_folder(tmp_path / "file"))
    assert (code, exit_code) == ("target_exists", 4)
    assert "-o" in message


def test_a_curve_that_is_not_there_is_named_with_the_nearest() -> None:
    found: Any = {"names": ["loss", "grad_norm"]}
    code, exit_code, message = refused(lambda: metrics._must_be_there(["los"], found, "job-1"))
    assert (code, exit_code) == ("unknown_name", 2)
    assert "'loss'" in message


def test_a_question_that_is_not_answered_with_yes_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda _self: True})())
    monkeypatch.setattr(click, "confirm", lambda *_asked, **_how: False)
    code, exit_code, message = refused(lambda: service._confirm("Do this?"))
    assert (code, exit_code, message) == ("not_confirmed", 4, "Nothing was done.")


def test_a_service_in_use_is_neither_installed_again_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = find_layout(Scope.SYSTEM, tmp_path)
    layout.current.parent.mkdir(parents=True)
    layout.current.symlink_to(tmp_path / "another")
    monkeypatch.setattr(releases, "version", lambda _path: "0.0.9")
    monkeypatch.setattr(releases, "interpreters_in_use", lambda _jobs: iter([Path("/python")]))
    monkeypatch.setattr(service, "_installed", lambda _layout: [])
    asked: Any = {"root": tmp_path, "scope": "system", "dry_run": True, "yes": True, "as_json": True}
    candidate = type("Candidate", (), {"path": tmp_path / "this"})()
    monkeypatch.setattr(service, "_candidate", lambda *_wanted: candidate)
    install: Any = service.install_service.callback
    code, exit_code, message = refused(lambda: install(source=None, python=None, units_only=False, **asked))
    assert (code, exit_code) == ("already_installed", 4)
    assert "finetune upgrade" in message
    uninstall: Any = service.uninstall_service.callback
    code, exit_code, message = refused(lambda: uninstall(purge=False, **asked))
    assert (code, exit_code) == ("jobs_running", 4)
    assert "finetune stop-workers" in message


@pytest.mark.parametrize("upto", ["90", "2026-01-31", "2026-01-31T12:00:00Z"])
def test_a_position_and_a_time_go_to_the_daemon_as_they_stand(upto: str) -> None:
    assert log._moment(upto) == upto


@pytest.mark.parametrize(
    ("age", "seconds"), [("0s", 0), ("90s", 90), ("30min", 1800), ("12h", 43_200), ("2d", 172_800)]
)
def test_an_age_is_the_time_that_it_means(age: str, seconds: int) -> None:
    before = datetime.now(UTC)
    meant = datetime.fromisoformat(log._moment(age)) + timedelta(seconds=seconds)
    assert before <= meant <= datetime.now(UTC)


@pytest.mark.parametrize("upto", ["soon", "3w", "5m", "-1", ""])
def test_what_is_no_moment_of_the_log_is_refused_with_all_that_are(upto: str) -> None:
    with pytest.raises(click.BadParameter, match=r"no age such as 90d, 12h, 30min or 10s") as told:
        log._moment(upto)
    assert told.value.param_hint == "--upto"
