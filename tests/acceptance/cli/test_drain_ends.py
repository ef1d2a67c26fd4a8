"""What ``finetune drain`` waits for, and what it takes for the daemon's end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running
from tests.acceptance.service.test_activation import Activated, listen_for

from finetuned.cli.drain import is_held_by_systemd
from finetuned.client.endpoint import SYSTEM_SOCKET


@pytest.fixture
def unix() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


def drain(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "FINETUNED_SOCKET": str(daemon.socket)}
    command = [sys.executable, "-m", "finetuned.cli.main", "drain", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def drained(daemon: Daemon, *arguments: str) -> tuple[str, str]:
    """What the command prints; it succeeds, and the daemon has ended as it should."""
    with drain(daemon, *arguments) as done:
        said, told = done.communicate(timeout=60)
    assert done.returncode == 0, told
    assert daemon.process is not None
    assert daemon.process.wait(timeout=60) == 0
    daemon.process = None
    return said, told


def a_running_job(daemon: Daemon) -> None:
    job_id = daemon.submit(steps=50_000, step_seconds=0.05)
    eventually(lambda: len(daemon.steps(job_id)) >= 2, what="some steps", timeout=60)


def test_the_drain_of_an_idle_daemon_succeeds_and_says_that_nothing_runs() -> None:
    with running() as daemon:
        _said, told = drained(daemon)
        assert told.splitlines() == [
            "Draining; nothing runs.",
            "The daemon has stopped; what was paused goes on after its next start.",
        ]


def test_a_drains_json_is_the_drain_as_it_began_and_it_ends_with_the_daemon() -> None:
    with running() as daemon:
        said, told = drained(daemon, "--json")
        assert told == ""
        assert json.loads(said) == {"object": "drain", "mode": "pause", "jobs": []}


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_nobody_knocks_any_more_at_a_socket_that_would_start_the_next_daemon(
    unix: socket.socket, *, busy: bool
) -> None:
    with Activated(unix) as daemon:
        listen_for(daemon, unix)
        daemon.start()
        if busy:
            a_running_job(daemon)
        drained(daemon)
        unix.setblocking(False)
        with pytest.raises(BlockingIOError):  # a connection in the queue is what systemd starts a daemon for
            unix.accept()


def test_a_daemon_that_was_killed_in_the_middle_is_not_called_stopped() -> None:
    with running() as daemon:
        a_running_job(daemon)
        with drain(daemon, "--finish") as waiting:
            assert waiting.stderr is not None
            assert "1 job has" in waiting.stderr.readline()
            daemon.kill()
            told = waiting.stderr.read()
        assert waiting.returncode != 0
        assert "whether the daemon drains on is not known. `finetune drain` goes on with it." in told
        daemon.start()


def test_who_took_a_drain_back_is_in_the_log() -> None:
    with running() as daemon:
        a_running_job(daemon)
        daemon.ok("POST", "/v1/drain", {"mode": "finish"})
        daemon.ok("DELETE", "/v1/drain")
        told = daemon.ok("GET", "/v1/events?types=daemon.draining,daemon.drain_taken_back")["data"]
        assert [(each["type"], each["actor"]) for each in told] == [
            ("daemon.draining", f"uid:{os.getuid()}"),
            ("daemon.drain_taken_back", f"uid:{os.getuid()}"),
        ]


def test_a_socket_that_systemd_holds_is_known_without_a_connection(tmp_path: Path) -> None:
    assert is_held_by_systemd(SYSTEM_SOCKET, lambda _command: "active\n", booted=tmp_path)
    assert not is_held_by_systemd(SYSTEM_SOCKET, lambda _command: "inactive\n", booted=tmp_path)
    assert not is_held_by_systemd(tmp_path / "s", lambda _command: "active\n", booted=tmp_path)
    assert not is_held_by_systemd(None, lambda _command: "active\n", booted=tmp_path)
    assert not is_held_by_systemd(SYSTEM_SOCKET, lambda _command: "active\n", booted=tmp_path / "none")

    def broken(_command: object) -> str:
        raise FileNotFoundError

    assert not is_held_by_systemd(SYSTEM_SOCKET, broken, booted=tmp_path)
