"""What callers hand in and what they get back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ("Event", "NewEvent", "Page")


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A fact to be appended.

    `stream` is the thing it is about (`job/17`), `type` what happened (`job.submitted`), `data` JSON,
    `actor` who caused it, `cause` what it follows from, `schema` the version of the data's shape.
    """

    stream: str
    type: str
    data: Mapping[str, Any]
    actor: str = "system"
    cause: str | None = None
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """A fact on disk.

    `seq` is its position in the whole log (1, 2, 3, … without gaps), `version` the one in its stream, `at`
    microseconds since the Unix epoch in UTC, never decreasing with `seq`. `data` is what a reader of the file
    gets, not the caller's object: tuples have become lists and NaN null.
    """

    seq: int
    stream: str
    version: int
    type: str
    schema: int
    at: int
    actor: str
    cause: str | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Events that matched, and the position up to which everything was looked at (go on from there)."""

    events: list[Event]
    scanned: int
