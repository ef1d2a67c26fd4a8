"""How many connections there may be: in all, and of one client. Knows no HTTP."""

from __future__ import annotations

import resource
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from finetuned.api.auth import Socket, peer_of
from finetuned.api.failures import network

KEPT_FOR_WORK = 256  # file descriptors that no connection gets: the log, bundles, pidfds, downloads


@dataclass(frozen=True, slots=True)
class Client:
    """Whose a connection is: the door that it came by, and an address on TCP or a user on the Unix socket."""

    door: str
    who: str


@dataclass(slots=True)
class Admission:
    """Counts the connections of each door and each client.

    The doors are counted apart, so that a flood over TCP does not keep the machine's own users out.
    """

    most: int
    most_per_client: int
    _doors: Counter[str] = field(default_factory=Counter)
    _clients: Counter[Client] = field(default_factory=Counter)

    def enter(self, client: Client) -> str | None:
        """Count a connection. If there are too many, it is not counted, and what to tell the client is returned."""
        if self._doors[client.door] >= self.most:
            return (
                f"This daemon holds {self.most} connections, as many as it may; close some, come back in a moment, or"
                " raise max_connections in its configuration."
            )
        if self._clients[client] >= self.most_per_client:
            return (
                f"{client.who} holds {self.most_per_client} connections, as many as one client may; close some, or"
                " raise max_connections_per_client in the daemon's configuration."
            )
        self._doors[client.door] += 1
        self._clients[client] += 1
        return None

    def leave(self, client: Client) -> None:
        """A connection that was counted is gone."""
        self._doors[client.door] -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


def client_of(connection: Socket, peername: Any) -> Client:
    """Whose a new connection is."""
    if connection.family == socket.AF_UNIX:
        return Client("unix", f"uid {peer_of(connection).uid}")
    return Client("tcp", network(str(peername[0])) if peername else "unknown")


def affordable(wanted: int) -> int:
    """As many connections as wanted, or as the file descriptors of this process allow to each of two doors."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (limit - KEPT_FOR_WORK) // 2))
