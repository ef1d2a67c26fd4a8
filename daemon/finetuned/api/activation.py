"""Sockets that the service manager has opened and hands over (sd_listen_fds(3)).

It keeps its own copies: a client that comes while the daemon restarts waits in the queue instead of being refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from finetuned.domain.errors import StartError

FIRST: Final = 3  # the descriptors are numbered from here
_FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Inherited:
    """The listening sockets that were handed over; closing them here leaves the manager's open."""

    unix: tuple[socket.socket, ...] = ()
    tcp: tuple[socket.socket, ...] = ()

    def close(self) -> None:
        """Close this process's copies. Nothing is unlinked: the path is the manager's."""
        for each in (*self.unix, *self.tcp):
            each.close()


def descriptors(environment: Mapping[str, str], pid: int) -> dict[int, str]:
    """The descriptors that are handed over to the process ``pid``, each with its name.

    Raises ``StartError`` if the variables say something that cannot be.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return {}
    count = environment.get("LISTEN_FDS", "")
    if not count.isdecimal():
        raise StartError(f"LISTEN_FDS is {count!r}, which is no number; start the daemon by its socket unit.")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    return {FIRST + index: names[index] if index < len(names) else "unknown" for index in range(int(count))}


def inherited(environment: Mapping[str, str] = os.environ) -> Inherited:
    """Take over the sockets that were handed to this process; none is the usual case.

    Raises ``StartError`` for one that the daemon cannot serve on.
    """
    found = [_listening(*each) for each in descriptors(environment, os.getpid()).items()]
    return Inherited(
        unix=tuple(each for each in found if each.family == socket.AF_UNIX),
        tcp=tuple(each for each in found if each.family != socket.AF_UNIX),
    )


def _listening(descriptor: int, name: str) -> socket.socket:
    remedy = "correct the socket unit: ListenStream= with a path or an address and port."
    try:
        os.set_inheritable(descriptor, False)  # workers get none of it
        handed = socket.socket(fileno=descriptor)
    except OSError as error:
        raise StartError(
            f"Descriptor {descriptor} ({name}) that was handed over is no socket ({error.strerror}); {remedy}"
        ) from None
    if handed.family not in _FAMILIES or not _accepts(handed):
        handed.close()
        raise StartError(f"The socket {descriptor} ({name}) that was handed over takes no streams; {remedy}")
    handed.setblocking(False)
    return handed


def _accepts(handed: socket.socket) -> bool:
    return handed.type == socket.SOCK_STREAM and bool(
        handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )
