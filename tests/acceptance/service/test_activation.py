"""A real daemon that is handed its sockets, as a socket unit of systemd does it."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, eventually

#: What systemd does between fork and exec: the sockets become 3 and up, and the variables name this process.
_HAND_OVER = """
import os, sys
numbers, pid, *command = sys.argv[1:]
numbers = [int(number) for number in numbers.split(",")]
for index, number in enumerate(numbers):
    os.dup2(number, 3 + index, inheritable=True)
    os.close(number)
os.environ.update(LISTEN_FDS=str(len(numbers)), LISTEN_PID=pid or str(os.getpid()))
os.execv(command[0], command)
"""


class Activated(Daemon):
    """A daemon that inherits listening sockets. They stay open here, as they do in systemd."""

    def __init__(self, *sockets: socket.socket, pid: str = "", **environment: str) -> None:
        super().__init__(**environment)
        self.handed = sockets
        self.pid = pid

    def spawn(self) -> subprocess.Popen[bytes]:
        # Numbers that are far from 3.
        numbers = [fcntl.fcntl(each, fcntl.F_DUPFD, 50) for each in self.handed]
        hand_over = [sys.executable, "-c", _HAND_OVER, ",".join(map(str, numbers)), self.pid]
        try:
            with (self.state / "daemon.log").open("ab") as output:
                return subprocess.Popen(
                    [*hand_over, sys.executable, "-m", "finetuned", *self.arguments],
                    env=self.environment,
                    stdout=output,
                    stderr=output,
                    pass_fds=numbers,
                )
        finally:
            for number in numbers:
                os.close(number)


@pytest.fixture
def unix() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def listen_for(daemon: Daemon, unix: socket.socket) -> None:
    unix.bind(str(daemon.socket))
    unix.listen()


def test_the_daemon_serves_on_the_socket_that_it_is_handed_and_knows_who_connects(
    unix: socket.socket,
) -> None:
    with Activated(unix) as daemon:
        listen_for(daemon, unix)
        daemon.start()
        job = daemon.job(daemon.submit(steps=0))
        assert job["submitted_by"] == f"uid:{os.getuid()}"
        assert f"socket {daemon.socket}, TCP off" in daemon.log()


def test_a_client_that_comes_while_the_daemon_is_away_waits_and_is_answered(unix: socket.socket) -> None:
    with Activated(unix) as daemon:
        listen_for(daemon, unix)
        daemon.start()
        assert daemon.stop() == 0
        assert daemon.socket.is_socket()  # it is not the daemon's to remove
        answers: list[Any] = []
        client = threading.Thread(target=lambda: answers.append(daemon.request("GET", "/readyz", timeout=30)))
        client.start()
        daemon.process = daemon.spawn()
        client.join()
        eventually(daemon.is_ready)
        assert answers[0][0] in {200, 503}  # it came into the queue of the first, and was heard by the second


def test_a_tcp_socket_that_is_handed_over_takes_the_place_of_the_configured_one(
    unix: socket.socket, tcp: socket.socket
) -> None:
    with Activated(tcp, unix) as daemon, socket.create_server(("127.0.0.1", 0)) as taken:
        listen_for(daemon, unix)
        daemon.arguments += ["--listen", f"127.0.0.1:{taken.getsockname()[1]}"]  # it would be refused
        daemon.start()
        url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/v1/jobs")


def test_with_a_tcp_socket_alone_the_daemon_makes_its_unix_socket_itself(tcp: socket.socket) -> None:
    with Activated(tcp) as daemon:
        daemon.start()
        assert daemon.stop() == 0
        assert not daemon.socket.exists()


def test_sockets_for_another_process_are_left_alone(tcp: socket.socket) -> None:
    with Activated(tcp, pid="1") as daemon:
        daemon.start()
        assert "TCP off" in daemon.log()


def test_no_worker_inherits_the_sockets(unix: socket.socket) -> None:
    with Activated(unix) as daemon:
        listen_for(daemon, unix)
        daemon.start()
        job = daemon.submit(steps=1000, step_seconds=0.05)
        daemon.wait_for(job, "running")
        handed = f"socket:[{os.fstat(unix.fileno()).st_ino}]"
        assert handed in descriptors_of(daemon.process.pid if daemon.process else 0)
        processes = daemon.attempt_processes(job)
        assert len(processes) >= 2  # runner and worker
        for pid in processes:
            assert handed not in descriptors_of(pid)


def descriptors_of(pid: int) -> list[str]:
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            found.append(str(each.readlink()))
    return found


@pytest.mark.parametrize("what", ["no streams", "not listening"])
def test_a_socket_that_cannot_be_served_on_is_refused_with_the_remedy(what: str) -> None:
    kind = socket.SOCK_DGRAM if what == "no streams" else socket.SOCK_STREAM
    with socket.socket(socket.AF_UNIX, kind) as odd, Activated(odd) as daemon:
        assert daemon.spawn().wait(20) == 69
        assert "takes no streams; correct the socket unit: ListenStream=" in daemon.log()


def test_a_descriptor_that_is_no_socket_is_refused_with_the_remedy() -> None:
    with open(os.devnull) as odd, Activated(odd) as daemon:  # type: ignore[arg-type]  # noqa: PTH123 - its descriptor
        assert daemon.spawn().wait(20) == 69
        assert "is no socket" in daemon.log()
        assert "correct the socket unit" in daemon.log()
