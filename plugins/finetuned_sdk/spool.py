"""The spool: an attempt's facts, one a line, numbered and with a checksum.

A line is ``<crc32 of the rest, 8 hex digits> <JSON object with n, at, type, data>``. One process writes; the
daemon reads while it grows and keeps the number of the last line it has recorded, so a line counts once.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Final

from finetuned_sdk.bundle import now_us
from finetuned_sdk.errors import PluginError
from finetuned_sdk.secrets import masked

FACT_TYPES: Final = frozenset({
    "hello",  # the worker is up: pid, python, …
    "phase",  # phase
    "progress",  # the figures of finetuned_sdk.context.Progress
    "advice",  # setting, message, figures
    "audit",  # report
    "evaluation",  # name, metrics, step
    "checkpoint",  # step, path, bytes, metrics
    "checkpoint_discarded",  # path
    "artifact",  # name, kind, path, bytes, files
    "model",  # name, path, kind, base, lineage
    "result",  # values
    "error",  # code, message, retryable, pauses
})  # fmt: skip
DROPPABLE: Final = frozenset({"progress", "phase", "advice"})  # what may be lost while the disk is full
#: What the job's fate hangs on: on disk before the work goes on.
SYNCED: Final = frozenset({"checkpoint", "checkpoint_discarded", "artifact", "model", "result", "error"})
MAX_LINE: Final = 1 << 19  # bytes
BACKLOG: Final = 1000  # facts kept in memory while the disk is full
RETRY_INTERVAL: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a spool. ``at`` is the worker's wall clock in microseconds since the epoch."""

    line: int
    type: str
    at: int
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that does not hold: damaged, out of sequence or of an unknown type."""

    line: int
    reason: str


def encode(fact: Fact) -> bytes:
    """A fact as a line. Figures that are not finite become null: JSON has no word for them."""
    record = {"n": fact.line, "at": fact.at, "type": fact.type, "data": plain(fact.data)}
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    body = text.encode("utf-8", "replace")  # lone surrogates would make the line unreadable elsewhere
    return b"%08x %b\n" % (zlib.crc32(body), body)


def decode(line: int, raw: bytes) -> Fact | BadLine:
    """The fact of the ``line``-th line of a spool (from 1), given without its newline."""
    digits, _, body = raw.partition(b" ")
    try:
        checksum = int(digits, 16)
        record = _DECODER.decode(body.decode())
        fact = Fact(record["n"], record["type"], record["at"], record["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return BadLine(line, "the line is damaged")
    if checksum != zlib.crc32(body):
        return BadLine(line, "the checksum does not match")
    if fact.line != line:
        return BadLine(line, f"out of sequence: the line calls itself {fact.line}")
    if not (isinstance(fact.type, str) and isinstance(fact.at, int) and isinstance(fact.data, dict)):
        return BadLine(line, "the line is no fact")
    if fact.type not in FACT_TYPES:
        return BadLine(line, f"unknown fact type {fact.type!r}")
    return fact


def parse(data: bytes, *, after: int) -> tuple[list[Fact | BadLine], int]:
    """The facts in ``data``, whose first line is number ``after + 1``, and how many bytes they took.

    An unfinished last line is left alone: its writer may still be at it.
    """
    end = data.rfind(b"\n") + 1
    rows = data[:end].split(b"\n")[:-1]
    return [decode(number, row) for number, row in enumerate(rows, after + 1)], end


def plain(value: Any) -> Any:
    """The value in JSON's own types: numbers of numpy and torch become Python's, non-finite ones null.

    Integers beyond 64 bits become floats: not every reader of JSON has larger ones.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return _number(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    item = getattr(value, "item", None)
    if callable(item):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # an array of more than one
            return plain(item())
    return str(value)


def _number(value: int) -> int | float | None:
    if -(1 << 63) <= value < 1 << 64:
        return value
    try:
        return float(value)
    except OverflowError:
        return None


_DECODER: Final = json.JSONDecoder(parse_int=lambda digits: _number(int(digits)))


class SpoolWriter:
    """Appends facts. Safe from any thread of the process that made it, and refused in its forked children.

    Values of ``secrets`` are masked in whatever is appended.

    A full disk loses no fact that matters: what could not be written waits in memory and is written when
    there is room (:meth:`flush`); beyond ``BACKLOG`` facts telemetry is dropped, oldest first.
    """

    def __init__(self, path: Path, *, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._backlog: deque[tuple[int, str, Mapping[str, Any]]] = deque()
        self._line = self._last_line()
        self._size = os.fstat(self._descriptor).st_size
        self._unsynced = False
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """How many facts are not on disk yet."""
        return len(self._backlog)

    def append(self, fact_type: str, data: Mapping[str, Any]) -> None:
        """Write a fact, or keep it for later when the disk is full.

        Raises ``PluginError`` for a fact longer than ``MAX_LINE``, unless it is telemetry: that is dropped.
        """
        if os.getpid() != self._pid:
            raise RuntimeError(
                "Only the worker's own process may report; a forked child has to tell its parent."
            )
        data = plain(data)
        if self._secrets:  # facts end in a log that forgets nothing
            data = masked(data, self._secrets)
        size = len(encode(Fact(0, fact_type, 0, data)))
        if size > MAX_LINE:
            self.dropped += 1
            if fact_type in DROPPABLE:
                return
            raise PluginError(
                f"The {fact_type} has {size} bytes, more than {MAX_LINE}; put what is long into an artifact."
            )
        with self._lock:
            self._backlog.append((now_us(), fact_type, data))
            self._write_backlog()
            if len(self._backlog) > BACKLOG:
                self._drop_oldest()

    def flush(self) -> bool:
        """Write what waits; whether nothing waits any more."""
        with self._lock:
            self._write_backlog()
            return not self._backlog

    def close(self, *, waiting: Callable[[], None] = lambda: None) -> None:
        """Write what waits, however long the disk stays full, and make it last. ``waiting`` is called before each retry."""
        while not self.flush():
            waiting()
            time.sleep(RETRY_INTERVAL)
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _write_backlog(self) -> None:
        while self._backlog:
            at, fact_type, data = self._backlog[0]
            line = encode(Fact(self._line + 1, fact_type, at, data))
            if not self._write_whole(line):
                return
            self._backlog.popleft()
            self._line += 1
            self._size += len(line)
            self._unsynced |= fact_type in SYNCED
        if self._unsynced:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)
            self._unsynced = False

    def _write_whole(self, line: bytes) -> bool:
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            written = 0
        if written == len(line):
            return True
        # A piece of a line would spoil the next one: back to the last newline.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._size)
        return False

    def _drop_oldest(self) -> None:
        for index, (_, fact_type, _) in enumerate(self._backlog):
            if fact_type in DROPPABLE:
                del self._backlog[index]
                self.dropped += 1
                return

    def _last_line(self) -> int:
        # A worker that starts on a spool with content goes on counting; a torn last line is cut off.
        content = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        os.ftruncate(self._descriptor, content.rfind(b"\n") + 1)
        return content.count(b"\n")
