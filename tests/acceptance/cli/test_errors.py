from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job

from finetuned.cli.main import COMMANDS, execute


def refusal(code: str, message: str = "No.") -> dict[str, object]:
    return {"error": {"code": code, "message": message, "param": "p", "type": "t"}}


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "invalid_params", 2),
        (413, "body_too_large", 2),
        (422, "idempotency", 2),
        (404, "not_found", 3),
        (409, "job_live", 4),
        (401, "invalid_token", 5),
        (403, "permission_denied", 5),
        (503, "unavailable", 6),
        (507, "disk_full", 6),
        (500, "internal_error", 1),
    ],
)
def test_each_refusal_has_its_exit_code_and_keeps_the_servers_code(
    daemon: FakeDaemon, finetune: Run, status: int, code: str, exit_code: int
) -> None:
    daemon.refusal = (status, refusal(code, "Do this instead."))
    outcome = finetune("ls")
    assert (outcome.code, outcome.out, outcome.err) == (exit_code, "", "Error: Do this instead.\n")
    outcome = finetune("ls", "--json")
    assert outcome.out == ""
    assert json.loads(outcome.err) == {"error": {"code": code, "message": "Do this instead.", "param": "p"}}


def test_a_code_that_is_more_exact_than_its_status_is_kept(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.refusal = (404, refusal("no_such_route"))
    assert '"no_such_route"' in finetune("ls", "--json").err


@pytest.mark.parametrize(
    "answer", ["<html>Bad gateway</html>", {"error": "no"}, [], {"error": {"message": 3}}]
)
def test_an_answer_that_is_not_finetuneds_is_said_to_be_foreign(
    daemon: FakeDaemon, finetune: Run, answer: object
) -> None:
    daemon.refusal = (502, answer)
    outcome = finetune("ls")
    assert outcome.code == 6
    assert "HTTP 502" in outcome.err
    assert "FINETUNED_URL" in outcome.err


def test_a_page_that_is_not_json_is_said_to_be_foreign(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.refusal = (200, "<html>Welcome</html>")
    outcome = finetune("ls")
    assert outcome.code == 6
    assert "not JSON" in outcome.err


def test_no_daemon_says_where_it_was_looked_for_and_how_to_start_one(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.stop()
    outcome = finetune("ls")
    assert outcome.code == 6
    assert str(daemon.socket) in outcome.err
    assert "Start one with `finetuned`" in outcome.err
    assert '"daemon_unreachable"' in finetune("ls", "--json").err


def test_no_daemon_at_a_url_names_the_url(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNED_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("FINETUNED_TOKEN", "x")
    outcome = finetune("ls")
    assert outcome.code == 6
    assert "http://127.0.0.1:1/" in outcome.err


def test_a_url_that_is_none_is_no_traceback(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNED_URL", "nonsense")
    outcome = finetune("ls")
    assert outcome.code == 6
    assert "nonsense" in outcome.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_socket_that_may_not_be_opened_says_so(daemon: FakeDaemon, directory: Path) -> None:
    directory.chmod(0o711)
    daemon.socket.chmod(0o600)
    code = (
        "import os, sys; os.setgroups([]); os.setgid(65534)\n"
        "from finetuned.cli.main import execute; import finetuned.cli.jobs, anyio._backends._asyncio\n"
        "os.setuid(65534); sys.exit(execute(['ls']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 6
    assert "You may not open" in done.stderr


def test_a_submission_whose_answer_was_lost_says_that_its_fate_is_not_known(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.hang_up = True
    outcome = finetune("delete", "job-1")
    assert outcome.code == 6
    assert "Whether it was done is not known" in outcome.err
    outcome = finetune("ls")
    assert outcome.code == 6
    assert "not known" not in outcome.err


def test_the_token_goes_with_each_request_to_a_url(
    daemon: FakeDaemon, finetune: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNED_URL", daemon.url + "/")
    monkeypatch.setenv("FINETUNED_TOKEN", "ft_secret")
    daemon.jobs["job-1"] = a_job("job-1")
    assert finetune("ls", "--json").code == 0
    assert daemon.authorization == "Bearer ft_secret"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["lss"], "No such command 'lss'"),
        (["ls", "--nope"], "finetune ls --help"),
        (["ls", "--state", "sleeping"], "'sleeping' is not one of"),
        (["show"], "Missing argument 'JOB'"),
        (["tokens", "create"], "Missing option '--scope'"),
        (["run", "sft", "--priority", "high"], "not a valid integer"),
    ],
)
def test_wrong_usage_is_exit_code_two_with_a_hint(finetune: Run, arguments: list[str], hint: str) -> None:
    outcome = finetune(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: ")
    assert hint in outcome.err


def test_wrong_usage_is_json_for_programs(finetune: Run) -> None:
    assert json.loads(finetune("show", "--json").err)["error"]["code"] == "usage"


def test_a_configuration_that_cannot_be_read_is_named(
    finetune: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("FINETUNED_URL", "FINETUNED_SOCKET", "FINETUNED_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "config.toml"
    file.write_text("lisen = '127.0.0.1:1'\n")
    monkeypatch.setenv("FINETUNED_CONFIG", str(file))
    outcome = finetune("ls")
    assert outcome.code == 78
    assert "listen" in outcome.err


def test_a_defect_is_a_sentence_and_with_debug_a_traceback(
    daemon: FakeDaemon, finetune: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.refusal = (200, {"nothing": "of a page"})
    outcome = finetune("ls")
    assert outcome.code == 70
    assert "FINETUNED_DEBUG=1" in outcome.err
    assert "Traceback" not in outcome.err
    monkeypatch.setenv("FINETUNED_DEBUG", "1")
    assert "Traceback" in finetune("ls").err


def test_a_reader_that_goes_away_ends_the_command_quietly(daemon: FakeDaemon) -> None:
    daemon.runs("job-1", steps=3000)
    command = f"{sys.executable} -m finetuned.cli.main events | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert "job.submitted" in done.stdout
    assert done.stdout.endswith("141\n")
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["run", "--help"]])
def test_help_and_version_need_no_daemon(finetune: Run, arguments: list[str]) -> None:
    outcome = finetune(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert "finetune" in outcome.out


def test_no_command_at_all_shows_the_help(finetune: Run) -> None:
    outcome = finetune()
    assert (outcome.code, outcome.out) == (2, "")
    assert "Fine-tune a small model" in outcome.err
    assert "Error" not in outcome.err


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from finetuned.cli.main import execute\n"
        "assert execute(['--help']) == 0 and execute(['--version']) == 0\n"
        "heavy = {'aiohttp', 'rich', 'pydantic', 'anyio', 'torch', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""


def test_no_command_imports_torch() -> None:
    imports = "; ".join(f"import finetuned.cli.{module}" for module, _ in COMMANDS.values())
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_ctrl_c_is_exit_code_130(daemon: FakeDaemon) -> None:
    daemon.runs("job-1", ends=False)
    with subprocess.Popen(
        [sys.executable, "-m", "finetuned.cli.main", "events", "job-1", "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(2)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""


def test_the_console_script_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["finetune", "lss"])
    from finetuned.cli.main import main

    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2


def test_a_narrow_terminal_keeps_ids_whole(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, finetune: Run
) -> None:
    daemon.jobs["job-abcdefghij"] = a_job("job-abcdefghij", name="a very long name indeed " * 3)
    monkeypatch.setenv("COLUMNS", "60")
    outcome = finetune("ls")
    assert max(map(len, outcome.out.splitlines())) <= 60
    assert "job-abcdefghij" in outcome.out
    monkeypatch.delenv("COLUMNS")
    assert "indeed a very long name indeed a very long name indeed" in finetune("ls").out


@pytest.mark.parametrize("arguments", [["ls"], ["ls", "--json"], ["kinds"], ["show", "job-1"]])
def test_a_terminal_without_unicode_gets_what_it_can_show(daemon: FakeDaemon, arguments: list[str]) -> None:
    daemon.runs("job-1")
    daemon.jobs["job-1"]["name"] = "größer ━ 大"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "FINETUNED_SOCKET": str(daemon.socket)}
    command = [sys.executable, "-m", "finetuned.cli.main", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    if "--json" in arguments:
        assert json.loads(done.stdout.decode("ascii"))["data"][0]["name"] == "größer ━ 大"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_of_a_command_but_its_output(daemon: FakeDaemon) -> None:
    before = open_files()
    for _ in range(5):
        assert execute(["ls", "--json"]) == 0
    deadline = time.monotonic() + 60
    while open_files() > before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert daemon.requests
