"""Rows of a text file from any position on, one at a time: never the whole file in memory, no row that is huge.

A reader yields :class:`RawRow`; the position after a row is where a later reader goes on.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from finetuned.datasets.content import BOM

LONGEST_ROW = 1 << 20  # bytes; a longer one is passed over
LONGEST_SKIP = 8 << 20  # bytes that are read to find the end of such a row, or a row at all
BLOCK = 1 << 16
MARK_COST = 6  # bytes that could be passed over in the time that a bracket takes; a row that is shown may be all brackets
ROW_COST = 64  # the same of a row, a blank one too
COLUMN_COST = 8  # the same of a column in each row

#: what a match passes over: up to a bracket, or to a string that the block does not end; the rest of a string
_TO_BRACKET = re.compile(rb'(?s)[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+')
_TO_QUOTE = re.compile(rb'(?s)[^"\\]*+(?:\\.[^"\\]*+)*+')
_BETWEEN = re.compile(rb"[\s,]*+")
_SCALAR = re.compile(rb"[^\s,\]}]*+")
_WRAPPED = re.compile(rb'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[\s*(?=\{)')


class File(Protocol):
    """What is needed of an open file."""

    def seek(self, offset: int, /) -> int:
        """Go to a byte."""

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes."""

    def readline(self, size: int, /) -> bytes:
        """Read to the end of the line, at most so many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """A row, or what is wrong with it. ``number`` counts from 1: lines in JSONL and CSV, rows in JSON.

    A blank one is not shown; it is there so that whoever reads can stop at it.
    """

    number: int
    value: Any = None
    problem: str | None = None
    last: bool = False  # nothing after it can be read
    blank: bool = False
    cost: int  # what it took, in bytes that could be read meanwhile
    after: tuple[int, int]  # position of what follows: its number less one, and its byte


TOO_LONG = f"longer than {LONGEST_ROW >> 20} MiB, so it is not shown"
CUT_SHORT = "malformed JSON: it ends in the middle of this row"


def jsonl(file: File, number: int, offset: int) -> Iterator[RawRow]:
    """Rows of JSON Lines; blank lines count and are not shown."""
    file.seek(offset)
    while line := file.readline(LONGEST_ROW + 1):
        number += 1
        length, ended = len(line), True
        value: Any = None
        problem: str | None = TOO_LONG
        if line.endswith(b"\n") or length <= LONGEST_ROW:
            text = line.removeprefix(BOM) if offset == 0 else line
            offset += length
            if not text.strip():
                yield RawRow(number=number, blank=True, cost=length + ROW_COST, after=(number, offset))
                continue
            value, problem = _parsed(text)
        else:
            skipped, ended = _skip_line(file)
            length += skipped
            offset += length
        yield RawRow(
            number=number,
            value=value,
            problem=problem,
            last=not ended,
            cost=length + ROW_COST,
            after=(number, offset),
        )


def _skip_line(file: File) -> tuple[int, bool]:
    """Read on to the line's end; how many bytes that were, and whether its end was found."""
    skipped = 0
    while skipped < LONGEST_SKIP:
        part = file.readline(BLOCK)
        skipped += len(part)
        if not part or part.endswith(b"\n"):
            return skipped, True
    return skipped, False


def _parsed(raw: bytes) -> tuple[Any, str | None]:
    try:
        return json.loads(raw.decode("utf-8")), None
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start + 1} of it"
    except json.JSONDecodeError as error:
        return None, f"malformed JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError):
        return None, "malformed JSON: nested too deeply, or a number of thousands of digits"


def csv_rows(file: File, number: int, offset: int) -> Iterator[RawRow]:
    """Records of a CSV file as objects; the first line is the header. A record that is malformed is the last."""
    csv.field_size_limit(LONGEST_ROW)
    lines = _Lines(file, 0, 0)
    header, problem = _record(csv.reader(lines, strict=True), lines)
    if problem is not None:
        yield RawRow(
            number=1, problem=problem, last=True, cost=lines.offset, after=(lines.number, lines.offset)
        )
    if header is None:
        return
    if offset > lines.offset:
        lines = _Lines(file, number, offset)
    reader = csv.reader(lines, strict=True)
    while True:
        first, began = lines.number + 1, lines.offset
        record, problem = _record(reader, lines)
        if record is None and problem is None:
            return
        value = None
        if record is not None and len(record) > len(header):
            problem = "more cells than the header has columns"
        elif record:
            value = dict(zip(header, [*record, *[None] * (len(header) - len(record))], strict=True))
        yield RawRow(
            number=first,
            value=value,
            problem=problem,
            last=record is None,
            blank=record == [],
            cost=lines.offset - began + ROW_COST + (COLUMN_COST * len(header) if record else 0),
            after=(lines.number, lines.offset),
        )
        if record is None:
            return


def _record(reader: Iterator[list[str]], lines: _Lines) -> tuple[list[str] | None, str | None]:
    """The next record, or what is wrong with it; neither at the end."""
    lines.begun = lines.offset
    try:
        return next(reader, None), None
    except csv.Error as error:
        return None, f"malformed CSV: {error}"
    except UnicodeDecodeError:
        return None, "not UTF-8"


class _Lines:
    """Decoded lines for ``csv.reader``, which takes no more of them than a record needs.

    Raises ``csv.Error`` where a record, which begins at ``begun``, is longer than what is shown.
    """

    def __init__(self, file: File, number: int, offset: int) -> None:
        file.seek(offset)
        self._file = file
        self.number = number
        self.offset = offset
        self.begun = offset

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self.offset += len(line)
        self.number += 1
        if self.offset - self.begun > LONGEST_ROW:
            raise csv.Error(f"a record of more than {LONGEST_ROW >> 20} MiB")
        return (line.removeprefix(BOM) if self.offset == len(line) else line).decode("utf-8")


def json_rows(file: File, number: int, offset: int) -> Iterator[RawRow]:
    """Values of a JSON array, of an array that an object wraps, or of JSON Lines in a file that calls itself .json."""
    source = _Source(file, offset or _first_value(file))
    while (raw := source.value()) is not None:
        if raw.blank:
            yield RawRow(number=number, blank=True, cost=raw.length, after=(number, source.offset))
            continue
        number += 1
        value, problem = (None, TOO_LONG) if raw.text is None else _parsed(raw.text)
        if raw.unfinished:
            problem = f"{TOO_LONG}, nor is what follows" if raw.text is None else CUT_SHORT
        last = raw.unfinished or (problem is not None and raw.text is not None)
        yield RawRow(
            number=number,
            value=value,
            problem=problem,
            last=last,
            cost=raw.length + ROW_COST,
            after=(number, source.offset),
        )
        if last:
            return


def _first_value(file: File) -> int:
    """Where the rows begin."""
    file.seek(0)
    head = file.read(BLOCK)
    begin = len(BOM) if head.startswith(BOM) else 0
    begin += len(head[begin:]) - len(head[begin:].lstrip())
    if head[begin : begin + 1] == b"[":
        return begin + 1
    wrapped = _WRAPPED.match(head, begin)
    if wrapped is None:
        return begin
    # {"messages": [{"role": …}]} is a row itself.
    first = _Source(file, wrapped.end()).value()
    text = b"" if first is None or first.text is None else first.text
    value, _problem = _parsed(text)
    return begin if isinstance(value, dict) and "role" in value else wrapped.end()


@dataclass(frozen=True, slots=True)
class _Value:
    """The bytes of one JSON value; ``None`` if they were too many to keep. A blank one is only space, and no end of it."""

    text: bytes | None
    length: int
    unfinished: bool = False
    blank: bool = False


class _Source:
    """Cuts a file into JSON values without parsing them."""

    def __init__(self, file: File, offset: int) -> None:
        file.seek(offset)
        self._file = file
        self._buffer = b""
        self._at = 0  # in the buffer
        self._start = offset  # of the buffer in the file

    @property
    def offset(self) -> int:
        """Where the next value is looked for."""
        return self._start + self._at

    def value(self) -> _Value | None:
        """The next value; ``None`` at the end of the array or file."""
        began = self.offset
        while self._pass(_BETWEEN) == b"":
            if self.offset - began > LONGEST_SKIP:
                return _Value(None, self.offset - began, blank=True)
            if not self._more(self._at):
                return None
        if self._buffer[self._at : self._at + 1] in {b"]", b"}"}:
            return None
        began, finished = self.offset, self._end_of_value()
        length = self.offset - began
        kept = length <= LONGEST_ROW and began >= self._start
        text = self._buffer[began - self._start : self._at] if kept else None
        return _Value(text, length, unfinished=not finished)

    def _end_of_value(self) -> bool:
        """Move behind the value that begins here; whether it ends at all, and not too far away."""
        began, depth, left = self.offset, 0, LONGEST_SKIP
        first = self._buffer[self._at : self._at + 1]
        scalar, in_string = first not in {b'"', b"[", b"{"}, first == b'"'
        self._at += in_string
        while left > 0:
            before = self.offset
            mark = self._pass(_SCALAR if scalar else _TO_QUOTE if in_string else _TO_BRACKET)
            if mark in {b"", b"\\"}:  # an escape that the block cuts
                # What begins here is kept from its beginning on, as long as it may still be shown.
                if not self._more(began - self._start if self.offset - began <= LONGEST_ROW else self._at):
                    return scalar
            elif scalar:
                return True
            else:
                self._at += 1
                if mark == b'"':
                    in_string = not in_string
                else:
                    depth += 1 if mark in b"[{" else -1
                if depth == 0 and not in_string:
                    return True
            left -= self.offset - before + MARK_COST
        return False

    def _pass(self, pattern: re.Pattern[bytes]) -> bytes:
        """Move behind what the pattern matches; the byte that is there, empty at the block's end."""
        found = pattern.match(self._buffer, self._at)
        self._at = found.end() if found else self._at
        return self._buffer[self._at : self._at + 1]

    def _more(self, keep: int) -> bool:
        """Read another block and forget what lies before ``keep`` in the buffer."""
        block = self._file.read(BLOCK)
        keep = max(keep, 0)
        self._buffer = self._buffer[keep:] + block
        self._start += keep
        self._at -= keep
        return bool(block)
