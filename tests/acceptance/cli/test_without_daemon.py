"""``config``, ``plugins``, ``completion`` and ``doctor``: commands that need no daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job

import finetuned
from finetuned.cli import checks, doctor


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any configuration."""
    for name in [each for each in os.environ if each.startswith("FINETUNED_") or each == "COLUMNS"]:
        monkeypatch.delenv(name)
    for name, value in {"HOME": "", "XDG_CONFIG_HOME": "config", "XDG_STATE_HOME": "state"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    return tmp_path


# ---- config --------------------------------------------------------------------------------------------------


def test_each_value_is_shown_with_where_it_comes_from(
    finetune: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "c.toml"
    file.write_text("# mine\nmax_attempts = 5\n")
    monkeypatch.setenv("FINETUNED_CONFIG", str(file))
    monkeypatch.setenv("FINETUNED_LISTEN", "127.0.0.1:1234")
    rows = {line.split()[0]: line for line in finetune("config", "show").out.splitlines()}
    assert rows["max_attempts"].split()[1:] == ["5", f"{file},", "line", "2"]
    assert rows["listen"].endswith("FINETUNED_LISTEN")
    assert rows["cancel_grace_s"].endswith("default")
    listed = finetune("config", "show", "--json").json["data"]
    assert {"key": "listen", "value": "127.0.0.1:1234", "source": "FINETUNED_LISTEN"} in listed


def test_one_value_is_alone_on_stdout(finetune: Run, home: Path) -> None:
    outcome = finetune("config", "show", "max_attempts")
    assert (outcome.out, outcome.err) == ("3\n", "From: default.\n")
    assert finetune("config", "show", "max_attempts", "--json").json["value"] == 3
    outcome = finetune("config", "show", "max_atempts")
    assert outcome.code == 2
    assert "Did you mean 'max_attempts'" in outcome.err


def test_everything_that_is_wrong_is_said_at_once(finetune: Run, home: Path) -> None:
    file = home / "c.toml"
    file.write_text("lisen = 'x'\nmax_attempts = 0\n")
    outcome = finetune("config", "check", str(file))
    assert outcome.code == 78
    assert f"{file}, line 1: 'lisen' is not a known key. Did you mean 'listen'?" in outcome.out
    assert f"{file}, line 2: max_attempts: " in outcome.out
    answer = finetune("config", "check", str(file), "--json").json
    assert (answer["ok"], len(answer["problems"])) == (False, 2)


def test_a_configuration_that_can_be_used_is_said_to_be(finetune: Run, home: Path) -> None:
    assert finetune("config", "check").out == "There is no file; the defaults can be used.\n"
    file = home / "c.toml"
    file.write_text("max_attempts = 4\n")
    outcome = finetune("config", "check", str(file))
    assert (outcome.code, outcome.out) == (0, f"{file} can be used.\n")
    assert finetune("config", "check", "--json").json == {"ok": True, "file": None, "problems": []}


@pytest.mark.parametrize("text", ["[", None])
def test_a_file_that_cannot_be_read_is_one_problem(finetune: Run, home: Path, text: str | None) -> None:
    file = home / "c.toml"
    if text is not None:
        file.write_text(text)
    outcome = finetune("config", "check", str(file), "--json")
    assert outcome.code == 78
    assert str(file) in outcome.json["problems"][0]["message"]


# ---- plugins -------------------------------------------------------------------------------------------------


def test_plugins_are_listed_with_what_became_of_them(
    finetune: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert finetune("plugins").code == 0
    monkeypatch.setenv("FINETUNED_BLOCK_PLUGINS", "sft")
    monkeypatch.setenv("FINETUNED_EXTRA_PLUGINS", "no_such_module")
    outcome = finetune("plugins")
    assert outcome.code == 1
    assert outcome.err == ""
    rows = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert "blocked" in rows["sft"]
    assert "FINETUNED_BLOCK_PLUGINS names it" in rows["sft"]
    assert "No module named 'no_such_module'" in rows["no_such_module"]
    assert {"loaded", "blocked", "broken"} == {
        each["status"] for each in finetune("plugins", "--json").json["data"]
    }


# ---- completion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(finetune: Run, shell: str) -> None:
    script = finetune("completion", shell).out
    assert "_FINETUNE_COMPLETE" in script
    assert finetune("completion", shell, "--json").json == {"shell": shell, "script": script}


def completed(words: str) -> list[str]:
    """What bash is told can come next."""
    environment = {
        **os.environ, "_FINETUNE_COMPLETE": "bash_complete", "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }  # fmt: skip
    command = [sys.executable, "-m", "finetuned.cli.main"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_subcommands_options_and_choices_are_completed() -> None:
    assert completed("finetune artif") == ["artifacts"]
    assert "--names" in completed("finetune metrics --")
    assert completed("finetune models import") == ["import-gguf"]
    assert completed("finetune ls --state ru") == ["running"]


def test_jobs_are_completed_where_a_daemon_answers(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.jobs["job-abc"] = a_job("job-abc")
    daemon.jobs["job-xyz"] = a_job("job-xyz")
    assert completed("finetune show job-a") == ["job-abc"]
    assert completed("finetune logs --tail 3 job-") == ["job-xyz", "job-abc"]
    daemon.stop()
    assert not any(completed("finetune show job-"))


# ---- doctor --------------------------------------------------------------------------------------------------


def by_name(outcome: object) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in outcome.json["checks"]}  # type: ignore[attr-defined]


def test_a_daemon_that_answers_is_said_to(
    daemon: FakeDaemon, finetune: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNED_SOCKET", str(daemon.socket))
    monkeypatch.setenv("FINETUNED_LISTEN", "")
    daemon.answers["GET", "/healthz"] = {"status": "ok", "version": finetuned.__version__, "uptime_s": 1.0}
    outcome = finetune("doctor", "--json")
    found = by_name(outcome)
    assert found["daemon"]["verdict"] == "ok"
    assert outcome.json["ok"] is (outcome.code == 0)
    assert list(found)[:4] == ["python", "packages", "trainer", "configuration"]
    daemon.answers["GET", "/healthz"] = {"status": "ok", "version": "0.0.1", "uptime_s": 1.0}
    assert by_name(finetune("doctor", "--json"))["daemon"]["verdict"] == "warn"
    daemon.refusal = (503, {"error": {"code": "unavailable", "message": "It recovers; wait."}})
    assert by_name(finetune("doctor", "--json"))["daemon"]["verdict"] == "fail"


def test_what_is_wrong_stands_with_its_remedy(
    finetune: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "open_files", lambda: checks.fail("open files", "Only 3.", "Raise it."))
    outcome = finetune("doctor")
    assert outcome.code == 1
    assert "✗ open files       Only 3." in outcome.out
    assert "→ Raise it." in outcome.out
    assert "! daemon           No daemon answers" in outcome.out
    assert "checks failed: " in outcome.err


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    finetune: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(checks, "shared_memory", broken)
    found = by_name(finetune("doctor", "--json"))
    assert "ZeroDivisionError" in found["shared memory"]["message"]
    assert "clock" in found


def test_a_configuration_that_is_wrong_ends_the_checks(
    finetune: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNED_LISTEN", "nonsense")
    outcome = finetune("doctor", "--json")
    assert outcome.code == 1
    assert list(by_name(outcome))[-1] == "configuration"
    assert doctor.MARKS.keys() == {"ok", "warn", "fail"}
