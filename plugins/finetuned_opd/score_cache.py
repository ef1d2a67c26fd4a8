"""What a teacher said once, kept on disk for all runs and resumes, and a teacher that looks there first.

An entry is named by a hash of the teacher, of what was wanted and of the token ids, so what is found is what would be
worked out again. The cache helps or does nothing: whatever is wrong with its file costs time, and no job.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save

from finetuned_opd.scores import Row, Scores, Teacher, Wanted

logger = logging.getLogger(__name__)

FILE: Final = "scores-1.sqlite3"  # the number is the layout's
BUSY_S: Final = 2.0  # for another run's write
REST_S: Final = 60.0  # without the cache, after it could not be used
EVICTED: Final = 64  # entries at a time
JOURNAL_BYTES: Final = 16 << 20  # of the write-ahead log that stay on disk
_PARTS: Final = ("log_probs", "hidden", "top_ids", "top_log_probs")

_LAYOUT: Final = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS scores (
    key BLOB PRIMARY KEY, used INTEGER NOT NULL, checksum INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON scores (used);
"""
_EVICT: Final = "DELETE FROM scores WHERE key IN (SELECT key FROM scores ORDER BY used LIMIT ?)"


class ScoreCache:
    """Scores by key, in an SQLite file of at most ``limit`` bytes; the least recently used go first.

    Several processes may use it at once. No method raises: what cannot be read is not there, what cannot be written is
    not kept, and the log has a line about it. ``clock`` gives seconds that only grow.
    """

    def __init__(self, directory: Path, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = directory / FILE
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._rests_until: float | None = None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Scores]:
        """The scores of those keys that are there and whole. They count as used."""
        found: dict[bytes, Scores] = {}

        def read(database: sqlite3.Connection) -> None:
            for key, checksum, value in _read(database, keys):
                scores = _decoded(key, checksum, value)
                if scores is None:
                    logger.warning("an entry of %s is damaged; the teacher is asked again", self._path)
                else:
                    found[key] = scores
            used = [(time.time_ns(), key) for key in found]
            _write(database, "UPDATE scores SET used = ? WHERE key = ?", used)

        self._try(read)
        return found

    def put(self, entries: Mapping[bytes, Scores]) -> None:
        """Keep scores; others make room."""
        rows = []
        for key, scores in entries.items():
            value = _encoded(scores)
            rows.append((key, time.time_ns(), zlib.crc32(key + value), value))

        def write(database: sqlite3.Connection) -> None:
            _write(
                database,
                "INSERT OR REPLACE INTO scores (key, used, checksum, value) VALUES (?, ?, ?, ?)",
                rows,
            )
            self._shrink(database)

        self._try(write)

    def close(self) -> None:
        """Close the file. It is opened again when it is needed."""
        with self._lock:
            self._close()

    def _try(self, action: Callable[[sqlite3.Connection], None]) -> None:
        """Do something with the open file, if there is one to be had. What goes wrong with it ends here."""
        with self._lock:
            if self._rests_until is not None and self._clock() < self._rests_until:
                return
            try:
                action(self._opened())
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)

    def _opened(self) -> sqlite3.Connection:
        if (
            self._connection is None or self._process != os.getpid()
        ):  # SQLite forbids to carry one over a fork
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._process = os.getpid()
            self._connection.executescript(_LAYOUT)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        return self._connection

    def _give_up(self, error: Exception) -> None:
        """Go on without the cache for a while; a file that is no database, or a broken one, is begun anew."""
        self._close()
        self._rests_until = self._clock() + REST_S
        logger.warning("the teacher's scores are not kept for now (%s): %s", self._path, error)
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            with suppress(sqlite3.Error):
                connection.close()

    def _shrink(self, database: sqlite3.Connection) -> None:
        before = -1
        while (taken := _taken(database)) > self._limit and taken != before:
            before = taken
            database.execute(_EVICT, (EVICTED,))
        database.executescript(
            "PRAGMA incremental_vacuum"
        )  # which steps until all pages are free; execute() frees one


class CachedTeacher:
    """A teacher that is asked for what the cache does not have. ``hits`` and ``misses`` count rows."""

    def __init__(self, teacher: Teacher, cache: ScoreCache) -> None:
        self._teacher = teacher
        self._cache = cache
        self.hits = 0
        self.misses = 0

    @property
    def identity(self) -> str | None:
        return self._teacher.identity

    def score(self, rows: Sequence[Row], wanted: Wanted) -> list[Scores]:
        identity = self.identity
        if identity is None:
            self.misses += len(rows)
            return self._teacher.score(rows, wanted)
        keys = [key_of(identity, row, wanted) for row in rows]
        found = self._cache.get(list(dict.fromkeys(keys)))
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in found}
        self.misses += len(missing)
        self.hits += len(rows) - len(missing)
        if missing:
            asked = dict(zip(missing, self._teacher.score(list(missing.values()), wanted), strict=True))
            self._cache.put(asked)
            found |= asked
        return [found[key] for key in keys]


def key_of(teacher: str, row: Row, wanted: Wanted) -> bytes:
    """The hash of what decides a row's scores: tokens that are not scored do not."""
    ids = (*row.prompt, *row.completion[: wanted.of(row)])
    what = (teacher, wanted.log_probs, wanted.hidden, wanted.top_k, len(row.prompt))
    return hashlib.sha256(repr(what).encode() + np.asarray(ids, dtype=np.int64).tobytes()).digest()


def _read(database: sqlite3.Connection, keys: Iterable[bytes]) -> Iterator[tuple[bytes, object, object]]:
    for key in keys:
        found = database.execute("SELECT checksum, value FROM scores WHERE key = ?", (key,)).fetchone()
        if found is not None:
            yield (key, *found)


def _write(database: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(statement, rows)


def _taken(database: sqlite3.Connection) -> int:
    """Bytes of the file's pages that hold something."""
    page, count, free = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_size", "page_count", "freelist_count")
    )
    return int(page * (count - free))


def _encoded(scores: Scores) -> bytes:
    parts = {name: getattr(scores, name) for name in _PARTS}
    return save({name: each.contiguous() for name, each in parts.items() if each is not None})


def _decoded(key: bytes, checksum: object, value: object) -> Scores | None:
    if not isinstance(value, bytes) or zlib.crc32(key + value) != checksum:
        return None
    try:
        return Scores(**load(value))
    except (SafetensorError, TypeError, ValueError, KeyError):
        return None
