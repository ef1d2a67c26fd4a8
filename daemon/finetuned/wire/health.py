"""Whether the daemon is there."""

from __future__ import annotations

from typing_extensions import TypedDict


class Alive(TypedDict):
    """The process answers."""

    status: str
    version: str
    uptime_s: float


class Ready(TypedDict):
    """The daemon can be used."""

    status: str
