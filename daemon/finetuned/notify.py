"""Telling systemd how the daemon is doing: the notify protocol (sd_notify(3)), a datagram of ``KEY=value``."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send ``message`` to the service manager; ``False``, and never an error, when none is listening."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(1.0)
        try:
            channel.sendto(message.encode(), address)
        except OSError as error:
            log.warning("The service manager at NOTIFY_SOCKET did not take %r: %s", message, error)
            return False
    return True
