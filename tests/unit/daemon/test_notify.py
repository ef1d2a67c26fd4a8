from __future__ import annotations

import socket
from pathlib import Path

import pytest

from finetuned.notify import notify, watchdog_period


def test_nothing_is_sent_without_a_service_manager() -> None:
    assert not notify("READY=1", {})


def test_the_service_manager_hears_what_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "n")})
        assert manager.recv(100) == b"READY=1"


def test_an_abstract_socket_is_reached_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel picks an abstract name
        name = manager.getsockname().decode().replace("\0", "@", 1)
        assert notify("STOPPING=1", {"NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"STOPPING=1"


def test_a_service_manager_that_is_gone_is_only_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "n")})
    assert "did not take 'READY=1'" in caplog.text


def test_an_address_that_cannot_be_one_is_only_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": "/" + "n" * 200})
    assert "too long" in caplog.text


def test_a_message_that_will_be_said_again_does_not_wait_for_a_full_queue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "n")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(environment["NOTIFY_SOCKET"])
        while notify("WATCHDOG=1", environment, patience_s=0):
            pass
        assert "Resource temporarily unavailable" in caplog.text
        assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environment", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),  # it is another's
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_period_is_what_systemd_says_to_this_process(
    environment: dict[str, str], period: float | None
) -> None:
    assert watchdog_period(environment, pid=7) == period
