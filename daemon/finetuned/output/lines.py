"""Lines of a worker's output: cut out of blocks, and what each of them is. Pure.

A line's level is a guess: by the words that logging writes (``ERROR``, ``WARNING``, …), by the names of Python's
exceptions and warnings, and by tracebacks, whose lines are all ``error``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, Self

Level = Literal["debug", "info", "warning", "error"]

KEPT_BYTES: Final = 64 << 10  # of a line; what it has beyond is passed over
SHOWN: Final = 2000  # characters of a line

_RANK = re.compile(r"^\[(?:default|rank)?\d+\]:\s?")  # before each line of a process that torchrun started
_WORDS: tuple[tuple[Level, re.Pattern[str]], ...] = (
    ("error", re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b|^(?:error|fatal)\b[^:]{0,20}:", re.ASCII)),
    ("warning", re.compile(r"\b(?:WARNING|WARN)\b|\b[A-Z]\w*Warning:|^warning:", re.ASCII)),
    ("info", re.compile(r"\bINFO\b", re.ASCII)),
    ("debug", re.compile(r"\bDEBUG\b", re.ASCII)),
)
_EXCEPTION = re.compile(
    r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Iteration|Group|Warning)(?::|$)", re.ASCII
)
#: without any of these no pattern of this module matches
_TELLING = re.compile(
    r"ERROR|CRITICAL|FATAL|WARN|INFO|DEBUG|error|fatal|warning|Error|Exception|Interrupt|Exit|Iteration|Group|Warning"
    r"|Traceback|exception|^\["
)
_ENDS = re.compile(rb"\n++")
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_LOOKED_AT = 300  # characters of a line in which its level is looked for


@dataclass(frozen=True, slots=True)
class Line:
    """One line: the offset of its first byte, its length with its end, its number (from 1), and whether it was cut."""

    offset: int
    bytes: int
    number: int
    text: str
    is_cut: bool


@dataclass(slots=True)
class Splitter:
    """Cuts blocks into lines; an unfinished one waits for its end, in bounded memory.

    ``offset`` is that of the first byte of the first block, ``number`` how many lines came before it.
    """

    offset: int = 0
    number: int = 0
    _held: bytearray = field(default_factory=bytearray)
    _held_bytes: int = 0  # of the unfinished line, those that were passed over too

    @property
    def position(self) -> int:
        """The offset of the next byte."""
        return self.offset + self._held_bytes

    def feed(self, block: bytes, *, empty: bool = True) -> Iterator[Line]:
        """The lines that end in this block; without ``empty`` those that have something, though all are numbered."""
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            if not empty and end == start and not self._held_bytes and (run := _ENDS.match(block, start)):
                self.number += run.end() - start
                self.offset += run.end() - start
                start = run.end()
                continue
            self._hold(block[start:end])
            yield self._finish(1)
            start = end + 1
        self._hold(block[start:])

    def finish(self) -> Iterator[Line]:
        """The last line, if it has no end and none will come."""
        if self._held_bytes:
            yield self._finish(0)

    def _hold(self, piece: bytes) -> None:
        self._held_bytes += len(piece)
        self._held += piece[: max(0, KEPT_BYTES - len(self._held))]

    def _finish(self, end: int) -> Line:
        is_cut = self._held_bytes > len(self._held)
        self.number += 1
        # A bar of progress rewrites its line: what it showed last counts.
        raw = bytes(self._held).removesuffix(b"\r").rpartition(b"\r")[2]
        line = Line(self.offset, self._held_bytes + end, self.number, raw.decode("utf-8", "replace"), is_cut)
        self.offset += line.bytes
        self._held, self._held_bytes = bytearray(), 0
        return line


@dataclass(slots=True)
class Judge:
    """Tells the level of one line after the other, and whether it begins a new error or warning.

    A traceback is one error with all its lines, chained ones and a logged line just before it included.
    """

    _in_traceback: bool = False
    _continues: bool = False  # whether a traceback that begins now belongs to the error before it

    @property
    def state(self) -> int:
        """What it remembers, as a number."""
        return self._in_traceback | self._continues << 1

    @classmethod
    def of(cls, state: int) -> Self:
        """One that remembers this."""
        return cls(bool(state & 1), bool(state & 2))

    def level(self, text: str) -> tuple[Level | None, bool]:
        """The level, and whether something begins here (and does not only go on)."""
        text = text[:_LOOKED_AT]
        if not self._in_traceback and not _TELLING.search(
            text
        ):  # most lines of a training, at a tenth of the cost
            self._continues = self._continues and not text.strip()
            return None, False
        return self.level_of_telling(text)

    def level_of_telling(self, text: str) -> tuple[Level | None, bool]:
        """The same for a line that has something that tells its level."""
        text = _RANK.sub("", text)
        if _TRACEBACK in text:
            is_new = not (self._continues or self._in_traceback)
            self._in_traceback = True
            return "error", is_new
        if self._in_traceback and (not text.strip() or text[0] in " \t"):
            return "error", False
        if text.startswith(_CHAINED):
            self._continues = True
            return "error", False
        if self._in_traceback and _EXCEPTION.match(text):
            self._in_traceback, self._continues = False, True
            return "error", False
        if not text.strip():
            return None, False
        self._in_traceback = False
        found = _level(text)
        self._continues = found == "error"
        return found, found is not None


def _level(text: str) -> Level | None:
    for level, pattern in _WORDS:
        if pattern.search(text):
            return level
    return "error" if _EXCEPTION.match(text) else None
