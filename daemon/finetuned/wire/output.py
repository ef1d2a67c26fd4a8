"""What jobs printed: lines that were looked for, and counts."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class LogLine(TypedDict):
    """A line of an attempt's output: ``offset`` is that of its first byte, ``line`` its number, ``level`` a guess.

    ``id`` is ``attempt:offset``, which ``after`` of the output itself takes. ``is_cut`` says that the line goes on.
    """

    id: str
    object: Literal["log_line"]
    attempt: int
    line: int
    offset: int
    level: Literal["debug", "info", "warning", "error"] | None
    text: str
    is_cut: bool


class AttemptCounts(TypedDict):
    """Counts of one attempt."""

    attempt: int
    lines: int
    errors: int
    warnings: int


class LogCounts(TypedDict):
    """How many lines, errors and warnings a job printed; a traceback is one error.

    ``is_complete`` is false where a request did not come to the end of what is there: the next one goes on.
    """

    object: Literal["log_counts"]
    job: str
    lines: int
    errors: int
    warnings: int
    is_complete: bool
    attempts: list[AttemptCounts]
