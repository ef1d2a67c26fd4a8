"""A real daemon with a service manager's socket: what it says, and when it falls silent."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.acceptance.daemon.process import Daemon, eventually

PERIOD_S = 2.0  # the writer may take half of it


class Manager:
    """The service manager's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def says(self, beginning: str, *, since: int = 0) -> bool:
        """Whether a message that begins so was heard, not counting the first ones."""
        while True:
            try:
                self.heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return any(each.startswith(beginning) for each in self.heard[since:])

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(tmp_path / "n")) as made:
        yield made


def managed(manager: Manager, **environment: str) -> Daemon:
    microseconds = str(int(PERIOD_S * 1e6))
    return Daemon(NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC=microseconds, **environment)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A database that nobody else can write to, as when a disk does not answer."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_it_tells_its_start_its_health_and_its_end_in_order(manager: Manager) -> None:
    with managed(manager) as daemon:
        daemon.start()
        eventually(lambda: manager.says("WATCHDOG=1"), what="a sign of life")
        eventually(lambda: manager.says("STATUS=Ready: 0 jobs at work"), what="its status")
        job = daemon.submit(steps=1000, step_seconds=0.1)
        daemon.wait_for(job, "running")
        eventually(lambda: manager.says("STATUS=Ready: 1 jobs at work"), what="its new status")
        assert daemon.stop() == 0
        assert manager.says("STOPPING=1")
    started = ["STATUS=Starting: reading the log", "EXTEND_TIMEOUT_USEC=30000000", "READY=1"]
    assert manager.heard[:3] == started
    assert manager.heard[-1] == "STOPPING=1"


def test_a_writer_that_is_stuck_silences_it_until_the_writer_goes_on(manager: Manager) -> None:
    with managed(manager) as daemon:
        daemon.start()
        eventually(lambda: manager.says("WATCHDOG=1"), what="a sign of life")
        with held(daemon.state / "events.sqlite"):
            client = threading.Thread(target=lambda: daemon.request("POST", "/v1/jobs", {"kind": "fake"}, 30))
            client.start()
            eventually(
                lambda: manager.says("STATUS=Unwell: the log's writer has not answered"), what="silence"
            )
            silent = len(manager.heard)
            # The loop itself is well and answers meanwhile; that alone earns no sign of life.
            assert daemon.is_ready()
            eventually(lambda: manager.says("STATUS=Unwell", since=silent), what="more silence")
            assert not manager.says("WATCHDOG=1", since=silent)
        client.join()
        eventually(lambda: manager.says("WATCHDOG=1", since=silent), what="a sign of life again")
        assert "The watchdog is not fed: the log's writer has not answered" in daemon.log()
        assert "The watchdog is fed again" in daemon.log()


def test_a_watchdog_of_another_process_is_not_fed_faster_than_the_status_needs(manager: Manager) -> None:
    with managed(manager, WATCHDOG_PID="1") as daemon:
        daemon.start()
        eventually(lambda: manager.says("STATUS=Ready"), what="its status")
        assert daemon.stop() == 0
        manager.says("")
    # One sign came with the status; the next is due when no watchdog's period is known, in ten seconds.
    assert manager.heard.count("WATCHDOG=1") == 1
