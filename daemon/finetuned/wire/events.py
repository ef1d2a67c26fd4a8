"""Facts of the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

Json = Any


class Event(TypedDict):
    """One fact of the log. ``at`` is RFC 3339 in UTC."""

    seq: int
    stream: str
    version: int
    type: str
    at: str
    actor: str
    data: Mapping[str, Json]
