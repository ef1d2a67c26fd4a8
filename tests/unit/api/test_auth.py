"""Credentials and scopes, without a connection."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from finetuned.api import auth
from finetuned.api.auth import Caller, Peer, Scope
from finetuned.domain.errors import PermissionDeniedError

DAEMON = {"uid": 990, "gid": 991}


class FakeSocket:
    """Answers as the kernel would."""

    family = socket.AF_UNIX

    def __init__(self, uid: int, gid: int, groups: list[int] | None) -> None:
        self._credentials = struct.pack("3i", 4711, uid, gid)
        self._groups = groups

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        assert level == socket.SOL_SOCKET
        if option == socket.SO_PEERCRED:
            assert length == len(self._credentials)
            return self._credentials
        assert option == auth.SO_PEERGROUPS
        if self._groups is None:
            raise OSError("Numerical result out of range")
        return struct.pack(f"{len(self._groups)}I", *self._groups)


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "scope"),
    [
        (0, 0, [], Scope.ADMIN),
        (0, 991, [991], Scope.ADMIN),
        (990, 0, [], Scope.ADMIN),
        (1000, 991, [], Scope.OPERATE),
        (1000, 1000, [4, 991, 1000], Scope.OPERATE),
        (1000, 991, None, Scope.OPERATE),
        (1000, 1000, None, None),
        (1000, 1000, [4, 990], None),
        (991, 990, [], None),
        (65534, 65534, [], None),
        (65534, 991, [991], None),
    ],
)
def test_a_peer_is_known_by_uid_and_groups(
    uid: int, gid: int, groups: list[int] | None, scope: Scope | None
) -> None:
    peer = auth.peer_of(FakeSocket(uid, gid, groups))
    assert (peer.uid, peer.gid) == (uid, gid)
    assert auth.scope_of_peer(peer, **DAEMON) is scope


def test_the_overflow_uid_is_refused_even_if_the_daemon_runs_as_it() -> None:
    assert auth.scope_of_peer(Peer(65534, 0), uid=65534, gid=0) is None


def test_the_kernel_tells_who_is_at_the_other_end_of_a_real_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = auth.peer_of(ours)
    assert (peer.uid, peer.gid) == (os.getuid(), os.getgid())
    assert peer.groups == frozenset(os.getgroups())


def test_the_daemons_own_user_administers_and_a_stranger_is_told_what_to_do() -> None:
    assert auth.identify_peer(Peer(os.geteuid(), os.getegid())) == Caller(f"uid:{os.geteuid()}", Scope.ADMIN)
    with pytest.raises(PermissionDeniedError, match=r"uid 54321 .* group with gid"):
        auth.identify_peer(Peer(54321, 54321))


@pytest.mark.parametrize("has", list(Scope))
@pytest.mark.parametrize("needs", list(Scope))
def test_a_scope_includes_the_lower_ones(has: Scope, needs: Scope) -> None:
    allowed = [Scope.READ, Scope.OPERATE, Scope.ADMIN].index(has) >= [
        Scope.READ, Scope.OPERATE, Scope.ADMIN,
    ].index(needs)  # fmt: skip
    if allowed:
        auth.require(Caller("token:tok-1", has), needs)
    else:
        with pytest.raises(PermissionDeniedError, match=f"scope {needs.name.lower()} and token:tok-1"):
            auth.require(Caller("token:tok-1", has), needs)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8642", "localhost"),
        ("gpu.example.:80", "gpu.example"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:8642", "::1"),
        ("[::1]", "::1"),
        ("", ""),
    ],
)
def test_a_host_header_is_read_without_port(header: str, name: str) -> None:
    assert auth.host_name(header) == name
