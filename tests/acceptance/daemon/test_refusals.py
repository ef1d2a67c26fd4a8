"""A daemon that cannot start, and requests that cannot be: one sentence with the remedy, never a traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import pytest
from tests.acceptance.daemon.process import Daemon, running

from finetuned_events import EventLog, NewEvent


def start_and_fail(daemon: Daemon) -> tuple[int, str]:
    code = daemon.spawn().wait(timeout=20)
    said = daemon.log().strip().splitlines()[-1]
    assert "Traceback" not in daemon.log()
    return code, said


def test_a_second_daemon_on_the_same_state_is_refused() -> None:
    with running() as daemon:
        code, said = start_and_fail(daemon)
        assert code == 69
        assert "Another daemon runs on" in said
        assert daemon.is_ready()


def test_a_port_that_is_taken_is_named_with_the_setting() -> None:
    with socket.socket() as taken, Daemon() as daemon:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon.arguments[daemon.arguments.index("--listen") + 1] = f"127.0.0.1:{port}"
        code, said = start_and_fail(daemon)
        assert code == 69
        assert str(port) in said
        assert "FINETUNED_LISTEN" in said


async def append_from_the_future(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append([NewEvent("daemon", "job.from_the_future", {})])


def test_a_log_of_a_newer_release_is_refused_and_not_touched() -> None:
    with running() as daemon:
        daemon.stop()
        anyio.run(append_from_the_future, daemon.state / "events.sqlite")
        code, said = start_and_fail(daemon)
        assert code == 69
        assert "job.from_the_future" in said
        assert "Upgrade finetuned" in said


def test_a_file_that_is_no_log_is_refused_and_not_touched() -> None:
    with Daemon() as daemon:
        path = daemon.state / "events.sqlite"
        path.write_text("these are my notes\n" * 100, encoding="utf-8")
        code, said = start_and_fail(daemon)
        assert code == 69
        assert "FINETUNED_STATE_DIR" in said
        assert path.read_text(encoding="utf-8").startswith("these are my notes")


def test_a_misspelt_setting_names_the_nearest_one() -> None:
    with Daemon() as daemon:
        config = daemon.state / "config.toml"
        config.write_text("cpu_slot = 2\n", encoding="utf-8")
        daemon.arguments += ["--config", str(config)]
        code, said = start_and_fail(daemon)
        assert code == 78
        assert "cpu_slots" in said


def test_a_state_directory_that_cannot_be_made_is_named() -> None:
    with Daemon() as daemon:
        blocker = daemon.state / "file"
        blocker.touch()
        daemon.arguments[daemon.arguments.index("--state-dir") + 1] = str(blocker / "state")
        code, said = start_and_fail(daemon)
        assert code == 69
        assert "FINETUNED_STATE_DIR" in said


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "sentence"),
    [
        ("POST", "/v1/jobs", {"kind": "sftt"}, 400, "unknown_kind", "Did you mean 'sft'"),
        ("POST", "/v1/jobs", {"kind": "fake", "params": {"stepz": 1}}, 400, "unknown_parameter", "steps"),
        ("POST", "/v1/jobs", {"kind": "transformers"}, 400, "engine_kind", "finetune batch run"),
        ("POST", "/v1/jobs", {"kind": "sft", "params": {}}, 400, "missing_parameter", "params.model"),
        (
            "POST",
            "/v1/jobs",
            {"kind": "fake", "params": {"devices": 9}},
            409,
            "too_many_devices",
            "ask for fewer",
        ),
        ("GET", "/v1/jobs/job-nope", None, 404, "not_found", "finetune ls"),
        ("GET", "/v1/jobs?limit=0", None, 400, None, "limit"),
        ("GET", "/v1/nothing", None, 404, None, "/v1/nothing"),
        ("PUT", "/v1/jobs", {}, 405, None, "PUT"),
        ("POST", "/v1/jobs", {"kind": "x" * (2 << 20)}, 413, "body_too_large", "max_body_bytes"),
    ],
)
def test_a_bad_request_is_answered_with_a_code_and_the_remedy(
    method: str, path: str, body: object, status: int, code: str | None, sentence: str
) -> None:
    with running() as daemon:
        answered, answer = daemon.request(method, path, body)
        assert answered == status, answer
        assert set(answer["error"]) == {"code", "message", "param", "type"}
        assert code in {None, answer["error"]["code"]}
        assert sentence in answer["error"]["message"]
        assert not [event for event in daemon.events() if event["stream"].startswith("job/")]


def test_no_job_is_taken_on_when_the_disk_is_nearly_full() -> None:
    with Daemon() as daemon:
        config = daemon.state / "config.toml"
        config.write_text(f"min_free_disk_bytes = {10**18}\n", encoding="utf-8")
        daemon.arguments += ["--config", str(config)]
        daemon.start()
        status, answer = daemon.request("POST", "/v1/jobs", {"kind": "fake"})
        assert (status, answer["error"]["code"]) == (507, "disk_full")
        assert "min_free_disk_bytes" in answer["error"]["message"]
