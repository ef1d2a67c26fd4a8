"""Searching and counting the lines of a job's output, piece by piece. Everything here blocks: call it off the loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.job import Job
from finetuned.log_lines import SHOWN, Judge, Level, Line, Splitter
from finetuned.logs import OutputReader

SCANNED_BYTES = 8 << 20  # that one page of a search looks through at most
PIECE_BYTES = 1 << 20  # that are counted in one go


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

    def has(self, line: Line, level: Level | None) -> bool:
        """Whether this is one of them."""
        return (self.level is None or level == self.level) and self.text.casefold() in line.text.casefold()


@dataclass(frozen=True, slots=True)
class Judged:
    """A line, its level, whether something begins with it, and the judge's state behind it."""

    line: Line
    level: Level | None
    is_new: bool
    state: int


@dataclass(slots=True)
class LineReader:
    """Lines with their levels of one attempt's output, from a place on."""

    directory: Path
    splitter: Splitter = field(default_factory=Splitter)
    judge: Judge = field(default_factory=Judge)

    def read(self, most: int, *, is_final: bool) -> tuple[list[Judged], int]:
        """The lines that end in about the next ``most`` bytes, and how many bytes there were (fewer: it is the end).

        At the end an unfinished line is one if nothing more will be written (``is_final``).
        """
        found: list[Judged] = []
        scanned = 0
        with OutputReader(self.directory) as reader:
            reader.seek(self.splitter.position)
            while scanned < most:
                block = reader.read()
                if not block:
                    return found + (
                        [self._judged(line) for line in self.splitter.finish()] if is_final else []
                    ), scanned
                begin = reader.position - len(block)
                if begin != self.splitter.position:  # what was between is rotated away
                    self.splitter, self.judge = Splitter(begin, self.splitter.number), Judge()
                found += [self._judged(line) for line in self.splitter.feed(block)]
                scanned += len(block)
        return found, scanned

    def _judged(self, line: Line) -> Judged:
        level, is_new = self.judge.level(line.text)
        return Judged(line, level, is_new, self.judge.state)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Some hits, where to go on, and whether there is more to look through now."""

    hits: list[Hit]
    after: Cursor
    has_more: bool


def search(directory: Path, job: Job, wanted: Wanted, after: Cursor, limit: int) -> SearchPage:
    """The next lines of a job's output that are wanted. Looks through a bounded piece: a page may be short or empty."""
    hits: list[Hit] = []
    begun, left = after, SCANNED_BYTES
    for attempt in job.attempts:
        number = attempt.number
        if number < after.attempt or wanted.attempt not in {None, number}:
            continue
        if number > after.attempt:
            after = Cursor(number)
        lines = LineReader(
            directory / "attempts" / str(number), Splitter(after.offset, after.number), Judge.of(after.state)
        )
        is_end = False
        while left > 0 and not is_end:
            most = min(left, PIECE_BYTES)
            found, scanned = lines.read(most, is_final=not attempt.is_live)
            for each in found:
                after = Cursor(number, each.line.offset + each.line.bytes, each.line.number, each.state)
                if wanted.has(each.line, each.level):
                    hits.append(Hit(number, each.line, each.level))
                    if len(hits) == limit:
                        return SearchPage(hits, after, has_more=True)
            left -= scanned
            is_end = scanned < most
        if not is_end:
            if (
                after == begun
            ):  # one line is longer than all that was looked through: its rest counts as the next
                after = Cursor(number, lines.splitter.position, lines.splitter.number, lines.judge.state)
            return SearchPage(hits, after, has_more=True)
    return SearchPage(hits, after, has_more=False)


@dataclass(slots=True)
class Count:
    """How many lines, errors and warnings one attempt printed so far, and where counting goes on."""

    lines: int = 0
    errors: int = 0
    warnings: int = 0
    is_complete: bool = False
    reader: LineReader | None = None

    def go_on(self, directory: Path, *, is_final: bool) -> bool:
        """Count the next piece; whether that was the last one for now."""
        if self.is_complete:
            return True
        self.reader = self.reader or LineReader(directory)
        found, scanned = self.reader.read(PIECE_BYTES, is_final=is_final)
        self.lines += len(found)
        self.errors += sum(each.is_new and each.level == "error" for each in found)
        self.warnings += sum(each.is_new and each.level == "warning" for each in found)
        is_end = scanned < PIECE_BYTES
        self.is_complete = is_end and is_final
        return is_end
