"""The requests of a file: read through once with bounded memory, checked, and found again by their place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from finetuned_batch.lines import BadLineError, Line, parse
from finetuned_sdk.errors import JobError

LONGEST_LINE: Final = 32 << 20  # bytes; an engine's socket takes no more than twice that
KEPT_PROBLEMS: Final = 100
PREFIX: Final = 256  # characters of a prompt by which its kin are known
BOM: Final = b"\xef\xbb\xbf"


class UnreadableInputError(JobError):
    """The input file cannot be opened or read."""

    code = "input_unreadable"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a batch is held to."""

    endpoint: str
    model: str
    max_requests: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one line, which counts from 1; ``None`` for the file as a whole."""

    line: int | None
    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One request's place in the file in bytes, the digest of its ``custom_id``, and the beginning of its prompt, digested."""

    offset: int
    length: int
    key: bytes
    prefix: bytes


@dataclass(slots=True)
class Requests:
    """What a file holds: rows in its order, and the first of its problems. ``total_problems`` counts all of them."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    total_problems: int = 0

    def note(self, problem: Problem) -> None:
        """Count a problem, and keep it if there are not too many."""
        self.total_problems += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)


def key_of(custom_id: str) -> bytes:
    """What a ``custom_id`` is known by here: 16 bytes however long it is."""
    return hashlib.blake2b(custom_id.encode(), digest_size=16).digest()


def read(path: Path, limits: Limits, *, advancing: Callable[[], None] = lambda: None) -> Requests:
    """Read a file through. Memory grows with the number of requests, never with their length.

    Raises ``UnreadableInputError``.
    """
    found = Requests(path)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > limits.max_bytes:
                found.note(
                    Problem(
                        None, "file_too_large", f"the file has more than {limits.max_bytes} bytes; split it"
                    )
                )
                return found
            _read(file, limits, found, advancing)
    except OSError as error:
        raise UnreadableInputError(
            f"The batch's input cannot be read ({error.strerror or error}); upload it again."
        ) from None
    if not found.rows and not found.total_problems:
        found.note(Problem(None, "empty_file", "the file holds no request"))
    return found


def custom_ids(found: Requests) -> Iterator[str]:
    """The ``custom_id`` of each row, in the file's order."""
    with found.path.open("rb") as file:
        for row in found.rows:
            yield json.loads(os.pread(file.fileno(), row.length, row.offset))["custom_id"]


def _read(file: BinaryIO, limits: Limits, found: Requests, advancing: Callable[[], None]) -> None:
    first_lines: dict[bytes, int] = {}
    offset = 0
    for number, raw in enumerate(_lines(file), 1):
        start, offset = offset, offset + len(raw)
        if len(raw) > LONGEST_LINE:
            offset = file.tell()
            found.note(Problem(number, "line_too_long", f"it is longer than {LONGEST_LINE} bytes"))
            continue
        text = raw.removeprefix(BOM) if number == 1 else raw
        if not text.strip():
            continue
        try:
            line = parse(text, endpoint=limits.endpoint, model=limits.model)
        except BadLineError as error:
            found.note(Problem(number, error.code, error.message, error.param))
            continue
        key = key_of(line.custom_id)
        before = first_lines.setdefault(key, number)
        if before != number:
            found.note(
                Problem(number, "duplicate_custom_id", f"its custom_id is that of line {before}", "custom_id")
            )
            continue
        if len(found.rows) == limits.max_requests:
            found.note(
                Problem(
                    None,
                    "too_many_requests",
                    f"the file holds more than {limits.max_requests} requests; split it",
                )
            )
            return
        found.rows.append(Row(start + len(raw) - len(text), len(text), key, _prefix(line)))
        if number % 1000 == 0:
            advancing()


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines, of too long ones the beginning; they are read to their end before the next."""
    while raw := file.readline(LONGEST_LINE + 1):
        rest = raw
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_LINE + 1) or b"\n"
        yield raw


def _prefix(line: Line) -> bytes:
    prompt = next((line.body[name] for name in ("messages", "prompt", "input") if name in line.body), "")
    text = json.dumps(prompt, ensure_ascii=False) if not isinstance(prompt, str) else prompt
    return hashlib.blake2b(text[:PREFIX].encode("utf-8", "surrogatepass"), digest_size=8).digest()
