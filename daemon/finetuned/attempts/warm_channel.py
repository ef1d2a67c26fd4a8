"""Messages between the daemon and its zygote: a JSON object each, with descriptors, over a socket that keeps them apart.

Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

LARGEST: Final = 1 << 18  # bytes; an environment is the largest part
_DESCRIPTORS: Final = 4


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends. When one is closed, by whatever death, the other reads ``None``."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message. Raises ``OSError`` if it is too large or nobody is there to read it."""
    socket.send_fds(end, [json.dumps(message).encode()], list(descriptors), socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors, which are the caller's to close; ``None`` when the other end is gone."""
    try:
        data, descriptors, _flags, _address = socket.recv_fds(end, LARGEST, _DESCRIPTORS)
    except ConnectionResetError:
        return None, []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return (json.loads(data) if data else None), descriptors
