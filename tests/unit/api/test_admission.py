"""How many connections there may be: counted by door and by client."""

from __future__ import annotations

import resource
import socket

import pytest

from finetuned.api.admission import Admission, Client, affordable, client_of

ADA, BOB = Client("tcp", "192.0.2.1"), Client("tcp", "192.0.2.2")
ROOT = Client("unix", "uid 0")


def test_a_client_gets_its_share_and_the_others_theirs() -> None:
    counted = Admission(most=10, most_per_client=2)
    assert [counted.enter(ADA), counted.enter(ADA)] == [None, None]
    assert "192.0.2.1 holds 2" in (counted.enter(ADA) or "")
    assert counted.enter(BOB) is None
    counted.leave(ADA)
    assert counted.enter(ADA) is None


def test_a_door_holds_so_many_and_the_other_door_as_many() -> None:
    counted = Admission(most=2, most_per_client=2)
    assert [counted.enter(ADA), counted.enter(BOB)] == [None, None]
    assert "max_connections in" in (counted.enter(BOB) or "")
    assert counted.enter(ROOT) is None
    counted.leave(ADA)
    assert counted.enter(BOB) is None


def test_clients_that_went_are_forgotten() -> None:
    counted = Admission(most=10, most_per_client=2)
    for number in range(1000):
        client = Client("tcp", f"192.0.2.{number}")
        assert counted.enter(client) is None
        counted.leave(client)
    assert not counted._clients
    assert counted._doors.total() == 0


def test_a_client_is_an_address_or_a_user() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert client_of(ours, "").door == "unix"
        assert client_of(ours, "").who.startswith("uid ")
    with socket.socket() as tcp:
        assert client_of(tcp, ("192.0.2.1", 5)) == ADA
        assert client_of(tcp, ("2001:db8::1", 5, 0, 0)) == Client("tcp", "2001:db8::/64")


@pytest.mark.parametrize(
    ("limit", "wanted", "granted"),
    [(65536, 4096, 4096), (1024, 4096, 384), (100, 4096, 1), (resource.RLIM_INFINITY, 4096, 4096)],
)
def test_connections_leave_descriptors_for_the_work(
    monkeypatch: pytest.MonkeyPatch, limit: int, wanted: int, granted: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (limit, limit))
    assert affordable(wanted) == granted
