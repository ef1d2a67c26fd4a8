"""Where the daemon is: ``FINETUNED_URL``, else a Unix socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SYSTEM_SOCKET = Path("/run/finetuned/finetuned.sock")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A daemon's address: a Unix socket, or a URL with a bearer token."""

    socket: Path | None = None
    url: str | None = None
    token: str | None = None

    @property
    def base_url(self) -> str:
        """What paths are joined to. Over a Unix socket the host is only a name."""
        return (self.url or "http://localhost").rstrip("/")

    @property
    def remedy(self) -> str:
        """What to do when nothing answers here."""
        if self.url is not None:
            return f"No daemon answers at {self.url}. Check FINETUNED_URL, and that the daemon runs there."
        return (
            f"No daemon answers at {self.socket}. Start one with `finetuned` (or `systemctl start finetuned`), "
            "or name another with FINETUNED_SOCKET or FINETUNED_URL."
        )

    def __str__(self) -> str:
        return self.url or str(self.socket)


def find_endpoint(
    environment: Mapping[str, str] = os.environ, *, system_socket: Path = SYSTEM_SOCKET
) -> Endpoint:
    """The daemon that the environment or the configuration names, else the user's own, else the system's.

    Raises ``ConfigError`` if the configuration cannot be read.
    """
    if url := environment.get("FINETUNED_URL"):
        return Endpoint(url=url, token=environment.get("FINETUNED_TOKEN"))
    if socket := environment.get("FINETUNED_SOCKET"):
        return Endpoint(socket=Path(socket))
    from finetuned import config_sources  # noqa: PLC0415 - what named endpoints need not pay

    if environment.get("FINETUNED_STATE_DIR") or config_sources.find_file(environment) is not None:
        from finetuned import config  # noqa: PLC0415 - a tenth of a second: only for what was really configured

        own = config.load(environ=environment).socket
    else:
        own = config_sources.default_state_dir(environment).absolute() / config_sources.SOCKET_NAME
    named = "FINETUNED_STATE_DIR" in environment
    return Endpoint(socket=own if named or own.exists() or not system_socket.exists() else system_socket)
