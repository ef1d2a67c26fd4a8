"""Secrets, by name."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Secret(TypedDict):
    """A secret that jobs can name as ``secret:<name>``. ``writable`` is false for what systemd brought."""

    name: str
    object: Literal["secret"]
    writable: bool
