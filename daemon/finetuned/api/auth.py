"""Who asks, and what they may do.

On the Unix socket the kernel says who connected (``SO_PEERCRED``: the credentials at ``connect``; unix(7)); on TCP
a bearer token does.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Protocol

from aiohttp import hdrs, web

from finetuned.api.doors import DOORS, FAILURES, USES
from finetuned.config import Config
from finetuned.domain import tokens
from finetuned.domain.errors import (
    AuthenticationError,
    PermissionDeniedError,
    TokenExpiredError,
    TooManyFailuresError,
)
from finetuned.domain.registers import Token

SO_PEERGROUPS = 59  # not in Python's socket module; asm-generic/socket.h
OVERFLOW_UID = 65534  # what the kernel shows for a uid of a foreign user namespace
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_MOST_GROUPS_BYTES = 1024  # Python reads no longer option


class Scope(IntEnum):
    """What a caller may do; a higher scope includes the lower ones."""

    READ = 1  #: look at everything but tokens
    OPERATE = 2  #: submit, cancel, retry and delete jobs; delete models
    ADMIN = 3  #: tokens, and the log's own files


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected to the Unix socket, as the kernel says."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: ``uid:1000`` or ``token:tok-…`` as the log records it, and the scope.

    ``expires_at`` is when the token stops opening anything, in microseconds since the epoch; ``None`` for never.
    """

    actor: str
    scope: Scope
    expires_at: int | None = None


class HostRefusedError(PermissionDeniedError):
    """The Host header names something else: DNS rebinding, or a name that the operator has not allowed."""

    code: ClassVar[str] = "host_not_allowed"
    status: ClassVar[int] = 421


class Socket(Protocol):
    """What is asked of a connection's socket."""

    @property
    def family(self) -> int: ...

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes: ...


def peer_of(connection: Socket) -> Peer:
    """The credentials of the process that connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        listed = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MOST_GROUPS_BYTES)
    except OSError:  # more than 256 groups, or a kernel before 4.13: the primary group has to do
        return Peer(uid, gid)
    groups = struct.unpack(f"{len(listed) // 4}I", listed)
    return Peer(uid, gid, frozenset(groups))


def scope_of_peer(peer: Peer, *, uid: int, gid: int) -> Scope | None:
    """What ``peer`` may do to a daemon that runs as ``uid`` and ``gid``; ``None`` for nothing at all."""
    if peer.uid == OVERFLOW_UID:
        return None
    if peer.uid in {0, uid}:
        return Scope.ADMIN
    if gid == peer.gid or gid in peer.groups:
        return Scope.OPERATE
    return None


async def identify(request: web.Request) -> Caller:
    """Who asks. Raises ``AuthenticationError`` or ``PermissionDeniedError``."""
    connection = _socket_of(request)
    if connection.family == socket.AF_UNIX:
        return identify_peer(peer_of(connection))
    secret = _bearer(request)
    queries = request.app[DOORS].queries
    token, now = await queries.token(secret), queries.now()
    if token is None or not tokens.is_open(token, now):
        raise _refused(request, token, now)
    request.app[USES].note(token, now)
    return Caller(f"token:{token.id}", Scope[token.scope.upper()], token.expires_at)


def _refused(request: web.Request, token: Token | None, now: int) -> AuthenticationError:
    shut = "This token is unknown" if token is None else tokens.why_shut(token, now)
    retry_after_s = request.app[FAILURES].record(request.remote or "")
    if retry_after_s is not None:
        return TooManyFailuresError(
            f"{shut}, and too many such requests came from this address; wait {math.ceil(retry_after_s)} s, and send"
            " a token that is good. Good ones are answered all the while.",
            retry_after_s=retry_after_s,
        )
    remedy = "make one with `finetune tokens create --scope operate`."
    if token is not None and token.revoked_at is None:
        return TokenExpiredError(f"{shut}; {remedy}")
    return AuthenticationError(f"{shut}; {remedy}")


def identify_peer(peer: Peer) -> Caller:
    """The caller behind a connection to the Unix socket. Raises ``PermissionDeniedError``."""
    scope = scope_of_peer(peer, uid=os.geteuid(), gid=os.getegid())
    if scope is None:
        raise PermissionDeniedError(
            f"uid {peer.uid} may not use this daemon; join the group with gid {os.getegid()}, or ask for a token "
            "and use FINETUNED_URL."
        )
    return Caller(f"uid:{peer.uid}", scope)


def require(caller: Caller, scope: Scope) -> None:
    """Raise ``PermissionDeniedError`` if the caller's scope does not include ``scope``."""
    if caller.scope < scope:
        raise PermissionDeniedError(
            f"This needs scope {scope.name.lower()} and {caller.actor} has {caller.scope.name.lower()}; "
            f"ask an administrator for a token with scope {scope.name.lower()}."
        )


def check_host(request: web.Request, config: Config) -> None:
    """Refuse a request over TCP whose Host header names none of this daemon's names."""
    if not over_tcp(request):
        return
    name = host_name(asked_as(request))
    allowed = {each.lower() for each in config.allowed_hosts}
    if config.address is not None:
        allowed.add(config.address[0].lower())
    if "*" not in allowed and name not in allowed:
        raise HostRefusedError(
            f"This daemon does not answer to the host {name!r}; add it to allowed_hosts in its configuration."
        )


def asked_as(request: web.Request) -> str:
    """The host and port that the client asked for: of an absolute target if it sent one, else of the Host header."""
    if not request.raw_path.startswith("/"):  # what begins so is a path, whatever it holds
        return request.raw_path.partition("://")[2].partition("/")[0]
    return request.headers.get(hdrs.HOST, "")


def host_name(header: str) -> str:
    """The name in a Host header: without port, brackets and a closing dot, in lower case."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def over_tcp(request: web.Request) -> bool:
    """Whether the request came by TCP, and not by the Unix socket."""
    return _socket_of(request).family != socket.AF_UNIX


def _socket_of(request: web.Request) -> Socket:
    transport = request.transport
    connection: Socket | None = None if transport is None else transport.get_extra_info("socket")
    if connection is None:
        raise ConnectionResetError("the client went")
    return connection


def _bearer(request: web.Request) -> str:
    scheme, _, secret = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise AuthenticationError(
            "Over TCP each request needs a token: send `Authorization: Bearer …` (FINETUNED_TOKEN for `finetune`)."
        )
    return secret.strip()
