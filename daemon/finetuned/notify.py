"""Telling systemd how the daemon is doing: the notify protocol (sd_notify(3)), a datagram of ``KEY=value``."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

PATIENCE_S = 5.0  # what a message that must arrive is given when the service manager's queue is full


def notify(
    message: str, environment: Mapping[str, str] = os.environ, *, patience_s: float = PATIENCE_S
) -> bool:
    """Send ``message`` to the service manager; ``False``, and never an error, when none takes it.

    With ``patience_s`` 0 it does not block; what will be said again anyway can be sent so.
    """
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(patience_s)
        try:
            channel.sendto(message.encode(), address)
        except OSError as error:
            log.warning("The service manager at NOTIFY_SOCKET did not take %r: %s", message, error)
            return False
    return True


def watchdog_period(environment: Mapping[str, str] = os.environ, *, pid: int | None = None) -> float | None:
    """Within how many seconds the service manager wants a sign of life; ``None`` if it wants none of us."""
    wanted_of = environment.get("WATCHDOG_PID", "")
    if wanted_of and wanted_of != str(os.getpid() if pid is None else pid):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1e6
