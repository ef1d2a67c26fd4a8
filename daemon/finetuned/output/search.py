"""Searching and counting the lines of a job's output, piece by piece. Everything here blocks: call it off the loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import anyio

from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.job import Job
from finetuned.looking import Check, always
from finetuned.output.files import OutputReader
from finetuned.output.lines import SHOWN, Judge, Level, Line, Splitter

SCANNED_BYTES = 8 << 20  # that one page of a search looks through at most
COUNTED_BYTES = 16 << 20  # that one request counts at most
PIECE_BYTES = 1 << 20  # that are counted in one go
LINE_COST = 40  # bytes that could be looked through in the time that a line as such takes


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a search goes on: an attempt, an offset in its output, how many lines came before, and in what state."""

    attempt: int = 0
    offset: int = 0
    number: int = 0
    state: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}:{self.offset}:{self.number}:{self.state}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cursor behind its text. Raises ``InvalidRequestError``."""
        parts = text.split(":")
        if len(parts) != 4 or not all(each.isascii() and each.isdigit() and len(each) < 19 for each in parts):
            raise InvalidRequestError(
                f"after: {text[:40]!r} is no place in the output; give the next_after of the page before.",
                param="after",
            )
        return cls(*(int(each) for each in parts))


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that was looked for."""

    attempt: int
    line: Line
    level: Level | None

    @property
    def text(self) -> str:
        """The line, cut to what is shown."""
        return self.line.text[:SHOWN]

    @property
    def is_cut(self) -> bool:
        """Whether the line goes on beyond its text."""
        return self.line.is_cut or len(self.line.text) > SHOWN


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are looked for: those with a text (whatever its case), of a level, of an attempt."""

    text: str = ""
    level: Level | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A line, its level, whether something begins with it, and the judge's state behind it."""

    line: Line
    level: Level | None
    is_new: bool
    state: int


@dataclass(slots=True)
class LineReader:
    """Lines with their levels of one attempt's output, from a place on. ``is_end``: the last read came to the end.

    ``check`` is called before each block, and ends the work by raising.
    """

    directory: Path
    splitter: Splitter = field(default_factory=Splitter)
    judge: Judge = field(default_factory=Judge)
    check: Check = always
    is_end: bool = False

    def read(self, most: int, *, is_final: bool, empty: bool = True) -> Iterator[Judged]:
        """The lines that end in about the next ``most`` bytes; a line counts as ``LINE_COST`` bytes more than it has.

        Without ``empty`` lines that are empty cost and give nothing; no level and no state depends on them. At the end an unfinished line is one if nothing more will be written (``is_final``).
        """
        self.is_end = False
        with OutputReader(self.directory) as reader:
            reader.seek(self.splitter.position)
            while most > 0:
                self.check()
                block = reader.read()
                if not block:
                    self.is_end = True
                    if is_final:
                        yield from map(self._judged, self.splitter.finish())
                    return
                begin = reader.position - len(block)
                if begin != self.splitter.position:  # what was between is rotated away
                    self.splitter, self.judge = Splitter(begin, self.splitter.number), Judge()
                for line in self.splitter.feed(block, empty=empty):
                    most -= LINE_COST
                    yield self._judged(line)
                most -= len(block)

    def _judged(self, line: Line) -> Judged:
        level, is_new = self.judge.level(line.text)
        return Judged(line, level, is_new, self.judge.state)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Some hits, where to go on, and whether there is more to look through now."""

    hits: list[Hit]
    after: Cursor
    has_more: bool


def search(
    directory: Path, job: Job, wanted: Wanted, after: Cursor, limit: int, check: Check = always
) -> SearchPage:
    """The next lines of a job's output that are wanted. Looks through a bounded piece: a page may be short or empty."""
    hits: list[Hit] = []
    begun, left = after, SCANNED_BYTES
    needle = wanted.text.casefold()
    for attempt in job.attempts:
        number = attempt.number
        if number < after.attempt or wanted.attempt not in {None, number}:
            continue
        if number > after.attempt:
            after = Cursor(number)
        lines = LineReader(
            directory / "attempts" / str(number),
            Splitter(after.offset, after.number),
            Judge.of(after.state),
            check,
        )
        start = lines.splitter.position
        for each in lines.read(left, is_final=not attempt.is_live):
            after = Cursor(number, each.line.offset + each.line.bytes, each.line.number, each.state)
            if (wanted.level is None or each.level == wanted.level) and needle in each.line.text.casefold():
                hits.append(Hit(number, each.line, each.level))
                if len(hits) == limit:
                    return SearchPage(hits, after, has_more=True)
        if not lines.is_end:
            # One line may be longer than all that was looked through: its rest counts as the next.
            if after == begun:
                after = Cursor(number, lines.splitter.position, lines.splitter.number, lines.judge.state)
            return SearchPage(hits, after, has_more=True)
        left -= lines.splitter.position - start
    return SearchPage(hits, after, has_more=False)


@dataclass(slots=True)
class Count:
    """How many lines, errors and warnings one attempt printed so far, and where counting goes on."""

    lines: int = 0
    errors: int = 0
    warnings: int = 0
    is_end: bool = False  # whether all was counted that was there
    is_complete: bool = False  # and nothing more will come
    reader: LineReader | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)  # who counts on

    def go_on(self, directory: Path, *, is_final: bool) -> int:
        """Count the next piece; what that cost, in bytes that could be looked through meanwhile."""
        if self.is_complete:
            return 0
        self.reader = self.reader or LineReader(directory)
        start, cost = self.reader.splitter.position, 0
        for each in self.reader.read(PIECE_BYTES, is_final=is_final, empty=False):
            cost += LINE_COST
            self.errors += each.is_new and each.level == "error"
            self.warnings += each.is_new and each.level == "warning"
        self.lines = self.reader.splitter.number
        self.is_end = self.reader.is_end
        self.is_complete = self.is_end and is_final
        return cost + max(0, self.reader.splitter.position - start)
