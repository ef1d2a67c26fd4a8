"""A model that is asked gets an engine; who goes away aborts; workers are restarted, killed and cleared by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running

PLUGINS = "finetuned_sdk.fake,finetuned_sdk.fake_engine,tests.acceptance.daemon.gated"


def config(tmp_path: Path, **options: object) -> str:
    """A configuration whose default engine is the fake one, set up like this."""
    file = tmp_path / "config.toml"
    lines = ["engine_queue = 1", 'default_engine = "fake-engine"', "[engines.fake-engine.options]"]
    lines += [f"{name} = {value}" for name, value in options.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model").mkdir()
    return str(tmp_path / "model")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose engine takes its time with each word."""
    with running("--config", config(tmp_path, token_seconds=0.5), FINETUNED_EXTRA_PLUGINS=PLUGINS) as started:
        yield started


def body(model: str, words: int, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "word " * words}], **more}


def engines(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.ok("GET", "/v1/jobs?kind=fake-engine")["data"]
    return found


def engine_worker(daemon: Daemon) -> dict[str, Any]:
    found = [each for each in daemon.ok("GET", "/v1/workers")["data"] if each["engine"] is not None]
    return found[0] if found else {"engine": {"running": -1, "tokens": -1}}


def runs(daemon: Daemon, job_id: str) -> list[dict[str, Any]]:
    return [each for each in daemon.job(job_id)["attempts"] if each["purpose"] == "run"]


def begin(daemon: Daemon, model: str) -> socket.socket:
    """Ask for an answer that would take minutes, and read none of it."""
    asked = json.dumps(body(model, 400)).encode()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(daemon.socket))
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(asked), asked)
    )
    eventually(lambda: engine_worker(daemon)["engine"]["running"] == 1, what="the answer's beginning")
    return connection


def test_a_question_starts_the_engine_which_answers_the_next_one_too(daemon: Daemon, model: str) -> None:
    for _ in range(2):
        answer = daemon.ok("POST", "/v1/chat/completions", body(model, 3))
        assert answer["choices"][0]["message"]["content"] == "word word word"
    (engine,) = engines(daemon)
    assert engine["state"] == "running"
    eventually(lambda: "job" in engine_worker(daemon), what="its status")
    worker = engine_worker(daemon)
    assert (worker["job"], worker["heartbeat_s"] is not None) == (engine["id"], True)


def test_a_client_that_goes_away_aborts_and_meanwhile_the_queue_is_full(daemon: Daemon, model: str) -> None:
    with begin(daemon, model):
        status, refused = daemon.request("POST", "/v1/chat/completions", body(model, 1))
        assert (status, refused["error"]["code"]) == (429, "engine_busy")
    eventually(lambda: engine_worker(daemon)["engine"]["running"] == 0, what="the abort")
    assert daemon.ok("POST", "/v1/chat/completions", body(model, 1))


def test_a_killed_engine_is_told_to_who_asked_and_answers_who_asks_again(daemon: Daemon, model: str) -> None:
    with begin(daemon, model) as connection:
        (engine,) = engines(daemon)
        daemon.ok("POST", f"/v1/workers/{engine['id']}/kill")
        told = connection.recv(65536)
    assert told.startswith(b"HTTP/1.1 503")
    assert b"engine_ended" in told
    assert daemon.ok("POST", "/v1/chat/completions", body(model, 1))


def test_a_restarted_engine_comes_again_when_it_is_asked(daemon: Daemon, model: str) -> None:
    daemon.ok("POST", "/v1/chat/completions", body(model, 1))
    (engine,) = engines(daemon)
    daemon.ok("POST", f"/v1/workers/{engine['id']}/restart")
    assert daemon.wait_for(engine["id"])["state"] == "cancelled"
    daemon.ok("POST", "/v1/chat/completions", body(model, 1))
    assert len(engines(daemon)) == 2


def test_an_idle_engine_is_cleared_and_a_cpu_says_that_it_proves_nothing(daemon: Daemon, model: str) -> None:
    daemon.ok("POST", "/v1/chat/completions", body(model, 1))
    (engine,) = engines(daemon)
    cleared = daemon.ok("POST", "/v1/workers/clear-gpu")
    assert cleared["ended"] == [engine["id"]]
    assert "shows no GPU" in cleared["message"]
    assert daemon.job(engine["id"])["state"] == "cancelled"
    assert not daemon.attempt_processes(engine["id"])


def test_a_killed_trainer_goes_on_as_after_a_crash(daemon: Daemon) -> None:
    job_id = daemon.begun()
    daemon.ok("POST", f"/v1/workers/{job_id}/kill")
    eventually(lambda: len(runs(daemon, job_id)) == 2, what="another try")
    first = runs(daemon, job_id)[0]
    assert first["outcome"] == "failed"
    assert "killed by hand" in first["cause"]
    daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
    daemon.wait_for(job_id)


def test_a_restarted_trainer_saves_and_goes_on(daemon: Daemon) -> None:
    job_id = daemon.begun()
    daemon.ok("POST", f"/v1/workers/{job_id}/restart")
    eventually(lambda: len(runs(daemon, job_id)) == 2, what="its next attempt")
    first, second = runs(daemon, job_id)
    assert first["outcome"] == "paused"
    assert second["resume_from"] is not None
    daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
    daemon.wait_for(job_id)
