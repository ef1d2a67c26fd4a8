"""The elements of a JSON array, or of values that follow one another, without holding the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TextIO

READ_CHARS = 1 << 20
NEAR_END = 16  # a literal or an escape that is cut by the end of the buffer is no longer than this

_DECODER = json.JSONDecoder()


class MalformedError(ValueError):
    """The text is not JSON; says what is wrong and near which text."""


def values(file: TextIO) -> Iterator[object]:
    """The elements of the top-level array, or the top-level values one by one. Raises :class:`MalformedError`."""
    window = _Window(file)
    if window.peek() != "[":
        while window.peek():
            yield window.value()
        return
    window.skip()
    if window.peek() == "]":
        window.skip()
    else:
        while True:
            yield window.value()
            match window.peek():
                case ",":
                    window.skip()
                case "]":
                    window.skip()
                    break
                case "":
                    raise MalformedError("the file ends before the array is closed with ]")
                case _:
                    raise MalformedError(f"a comma or ] is missing before {window.excerpt()!r}")
    if window.peek():
        raise MalformedError(f"text after the array: {window.excerpt()!r}")


class _Window:
    """The part of the file that is being looked at: ``buffer[at:]`` is still to be read."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.buffer = ""
        self.at = 0

    def more(self) -> bool:
        # Doubling keeps the work linear when one element is larger than the buffer.
        chunk = self.file.read(max(READ_CHARS, len(self.buffer) - self.at))
        self.buffer = self.buffer[self.at :] + chunk
        self.at = 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is no white space, or ``""`` at the end."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more():
                return ""

    def skip(self) -> None:
        self.at += 1

    def excerpt(self) -> str:
        return self.buffer[self.at : self.at + 24]

    def value(self) -> object:
        self.peek()
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.buffer) - NEAR_END
                if cut and self.more():
                    continue
                raise MalformedError(f"{error.msg} at {self.buffer[error.pos : error.pos + 24]!r}") from None
            except RecursionError:
                raise MalformedError("nested too deeply") from None
            return value
