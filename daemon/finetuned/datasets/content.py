"""A dataset's bytes as they pass: their hash, their format, whether they are text, and how many rows they have.

Constant memory, and no row is parsed: what a row must have is the business of the job kind that reads it.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal, get_args

from finetuned.access.server_paths import open_to_read
from finetuned.domain.errors import InvalidRequestError

Format = Literal["jsonl", "json", "csv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

HEAD = 1 << 16  # bytes that are looked at to tell the format
BOM = codecs.BOM_UTF8
PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a dataset's bytes are. ``rows`` is ``None`` where counting them would mean parsing them."""

    sha256: str
    bytes: int
    format: Format
    rows: int | None


class Inspection:
    """Looks at blocks in order. The format is told by the content if none is ``declared``."""

    def __init__(self, declared: Format | None = None) -> None:
        self._declared = declared
        self._format: Format | None = None
        self._hash = hashlib.sha256()
        self._size = 0
        self._head = b""
        self._tail = b""
        self._text: _Text | None = None

    @property
    def size(self) -> int:
        """How many bytes there were so far."""
        return self._size

    def feed(self, block: bytes) -> None:
        """Look at the next block. Raises ``InvalidRequestError`` for what no dataset has."""
        self._hash.update(block)
        self._size += len(block)
        self._tail = (self._tail + block[-4:])[-4:]
        if self._format is not None:
            self._look(block)
            return
        self._head += block
        if len(self._head) >= HEAD:
            self._decide(whole=False)

    def finish(self) -> Inspected:
        """What it all was. Raises ``InvalidRequestError``."""
        if self._format is None:
            self._decide(whole=True)
        assert self._format is not None
        rows = None
        if self._text is not None:
            rows = self._text.finish()
            if rows == 0:
                raise empty()
        elif self._tail != PARQUET_MAGIC:
            raise InvalidRequestError(
                "The file begins as Parquet and does not end so: it was cut short; write or send it again.",
                code="dataset_format_mismatch",
            )
        return Inspected(sha256=self._hash.hexdigest(), bytes=self._size, format=self._format, rows=rows)

    def _decide(self, *, whole: bool) -> None:
        head, self._head = self._head, b""
        if whole and not head:
            raise empty()
        check_encoding(head)
        self._format = sniff(head, whole=whole) if self._declared is None else self._declared
        check_format(head, self._format)
        if self._format != "parquet":
            self._text = _Text(self._format)
        self._look(head)

    def _look(self, block: bytes) -> None:
        if self._text is not None:
            self._text.feed(block)


def sniff(head: bytes, *, whole: bool) -> Format:
    """The format of a file that begins with ``head``. Raises ``InvalidRequestError`` if it cannot be told."""
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    text = head.removeprefix(BOM).lstrip()
    if not text and whole:
        raise empty()
    if text.startswith(b"["):
        return "json"
    line, newline, _rest = text.partition(b"\n")
    if text.startswith(b"{"):
        if not newline and not whole:
            return "jsonl"  # a long first line: what is written over several lines has short ones
        return "jsonl" if _is_row(line) else "json"
    header = line.strip().decode("utf-8", "replace")
    if "," in header or header.strip('"') in {"text", "messages", "conversations"}:
        return "csv"
    raise InvalidRequestError(
        f"What kind of file this is cannot be told from its beginning ({header[:40]!r}); say so with"
        f" format={'|'.join(FORMATS)}.",
        param="format",
        code="dataset_format_unknown",
    )


def check_format(head: bytes, declared: Format) -> None:
    """Refuse content that cannot be what it is declared to be. Raises ``InvalidRequestError``."""
    text = head.removeprefix(BOM).lstrip()
    fits = {
        "parquet": head.startswith(PARQUET_MAGIC),
        "jsonl": text[:1] in {b"{", b""},
        "json": text[:1] in {b"{", b"[", b""},
        "csv": not head.startswith(PARQUET_MAGIC),
    }[declared]
    if not fits:
        begins = head[:20].decode("utf-8", "replace")
        raise InvalidRequestError(
            f"This is no {declared}: it begins with {begins!r}. Name the right format ({', '.join(FORMATS)}), or"
            " leave it out to have it found.",
            param="format",
            code="dataset_format_mismatch",
        )


def check_encoding(head: bytes) -> None:
    """Refuse UTF-16 and UTF-32 by their marks. Raises ``InvalidRequestError``."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise InvalidRequestError(
            "The file is UTF-16 or UTF-32; save it as UTF-8 (in a spreadsheet: CSV UTF-8).",
            code="dataset_not_utf8",
        )


def empty() -> InvalidRequestError:
    """The refusal of a file without rows."""
    return InvalidRequestError("The file has no rows; send one that has.", code="dataset_empty")


def _is_row(line: bytes) -> bool:
    """Whether a first line is a row of its own, and no array of rows that is wrapped in an object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    rows = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    wrapped = isinstance(rows, list) and rows and isinstance(rows[0], dict) and "role" not in rows[0]
    return isinstance(value, dict) and not wrapped


def open_regular(path: Path, roots: tuple[Path, ...] = ()) -> FileIO:
    """Open a file to read it, beneath the root that it lies in. Raises ``OSError``, also for what is no file.

    A pipe would hang whoever reads it.
    """
    descriptor = open_to_read(path, roots)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no file")
    return FileIO(descriptor, "rb")


class _Text:
    """Text formats: valid UTF-8, and rows where a line (or a record of lines) is one."""

    def __init__(self, written: Format) -> None:
        self._format = written
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._decoded = 0  # bytes that were given to the decoder
        self._lines = 0
        self._rows = 0
        self._filled = False  # the line in progress is not blank
        self._quoted = False  # an odd number of quotation marks so far in the record in progress
        self._blank = True  # nothing but white space so far

    def feed(self, block: bytes) -> None:
        self._decode(block, final=False)
        if self._blank and block.removeprefix(BOM).strip():
            self._blank = False
        if self._format == "json":
            return
        line, newline, rest = block.partition(b"\n")
        self._line(line)
        if not newline:
            return
        self._end_line()
        if self._is_plain(rest):  # each line is a row: counted without looking at one
            ended = rest.count(b"\n")
            self._lines += ended
            self._rows += ended
            self._line(rest[rest.rfind(b"\n") + 1 :])
            return
        line, *others = rest.split(b"\n")
        self._line(line)
        for line in others:
            self._end_line()
            self._line(line)

    def finish(self) -> int | None:
        """How many rows there were; 0 for none at all, ``None`` if they were not counted."""
        self._decode(b"", final=True)
        if self._blank:
            return 0
        if self._format == "json":
            return None
        if self._filled:
            self._end_line()
            self._rows += self._quoted  # a quotation mark that nobody closes
        return max(self._rows - 1, 0) if self._format == "csv" else self._rows

    def _is_plain(self, lines: bytes) -> bool:
        """Whether no line of these is blank or may go on over its end."""
        if self._format == "csv" and (self._quoted or b'"' in lines):
            return False
        blanks = b"\n\r" if self._format == "csv" else b" \t\n\r\x0b\x0c"
        return lines[:1] not in [bytes([each]) for each in blanks] and not any(
            b"\n%c" % each in lines for each in blanks
        )

    def _line(self, part: bytes) -> None:
        if self._format == "csv":
            self._filled = self._filled or bool(part.rstrip(b"\r"))
            self._quoted ^= bool(part.count(b'"') % 2)
        else:
            self._filled = self._filled or bool(part.strip())

    def _end_line(self) -> None:
        self._lines += 1
        if not self._quoted:
            self._rows += self._filled
            self._filled = False

    def _decode(self, block: bytes, *, final: bool) -> None:
        waiting = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            at = self._decoded - waiting + error.start
            line = self._lines + 1 + block[: max(error.start - waiting, 0)].count(b"\n")
            where = f"byte {at + 1}" if self._format == "json" else f"line {line} (byte {at + 1})"
            raise InvalidRequestError(
                f"The file is not UTF-8 at {where}; save it as UTF-8 (in a spreadsheet: CSV UTF-8).",
                code="dataset_not_utf8",
            ) from None
        self._decoded += len(block)
