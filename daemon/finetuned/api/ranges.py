"""Conditional and partial requests: what of a thing with a strong ETag a client asks for (RFC 9110, 13 and 14). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII | re.IGNORECASE)


class UnsatisfiableRangeError(ValueError):
    """The range begins behind the end."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``start`` (included) to ``stop`` (not) of ``size``."""

    start: int
    stop: int
    size: int

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return self.stop - self.start

    @property
    def content_range(self) -> str:
        """The Content-Range header's value."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def requested(header: str | None, if_range: str | None, etag: str, size: int) -> Range | None:
    """The one range that is asked for; ``None`` for all of it.

    Several ranges at once and what cannot be understood count as no range, as RFC 9110 (14.2) allows. So does a range
    under an ``If-Range`` that is not this ``etag``. Raises ``UnsatisfiableRangeError``.
    """
    match = None if header is None else _RANGE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return None
    if if_range is not None and if_range.strip() != etag:
        return None
    first, last = match[1], match[2]
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), size if last == "" else min(int(last) + 1, size)
        if last != "" and int(last) < start:
            return None  # invalid, which is not the same as unsatisfiable
    if start >= size:
        raise UnsatisfiableRangeError
    return Range(start, stop, size)


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this ``etag`` (weakly compared), or anything at all."""
    if header is None:
        return False
    names = [each.strip() for each in header.split(",")]
    return "*" in names or etag in [name.removeprefix("W/") for name in names]
