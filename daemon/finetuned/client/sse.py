"""Reading server-sent events: bytes in, frames out. Pure.

The format is WHATWG HTML, "Server-sent events": lines ``field: value``, a blank line ends a frame, a line that
begins with a colon is a comment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

DEFAULT_EVENT = "message"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. ``data`` is ``None`` for a frame that only moves the cursor (a heartbeat)."""

    event: str
    data: str | None
    id: str | None


@dataclass(slots=True)
class Parser:
    """Collects bytes into frames; a frame counts only once its blank line has come."""

    _rest: bytes = b""
    _event: str = ""
    _id: str | None = None
    _data: list[str] = field(default_factory=list)

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that ``chunk`` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            frame = self._line(line.rstrip(b"\r").decode("utf-8", errors="replace"))
            if frame is not None:
                yield frame

    def _line(self, line: str) -> Frame | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = value
        return None

    def _end(self) -> Frame | None:
        frame = Frame(
            event=self._event or DEFAULT_EVENT,
            data="\n".join(self._data) if self._data else None,
            id=self._id,
        )
        self._event, self._id, self._data = "", None, []
        return None if frame.data is None and frame.id is None else frame
