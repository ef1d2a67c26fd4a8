"""The heartbeat of a worker: one small record in the bundle, written over and over, never in the log.

It tells two things apart. ``beat_at`` is set by a thread beside the work: the process lives and its interpreter runs.
``step_at`` is set by the work itself, at each step that it reports and each phase that it enters: it makes progress.
Times are ``time.monotonic()`` in seconds, which all processes of one boot share. The record has a fixed length and is
overwritten in place, so that it needs no room on a full disk; a checksum shows a reader a record that is half written.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

SIZE: Final = 512  # bytes of the record
_PHASE_LENGTH: Final = 50  # characters of a phase that are kept; each takes at most six bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a worker last said of itself. ``step`` is ``None`` before the first."""

    pid: int
    beat_at: float
    step_at: float
    step: int | None = None
    phase: str | None = None


class HeartbeatFile:
    """The writer's side. Raises ``OSError`` if the file cannot be made; closed by :meth:`close`."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.pwrite(self._descriptor, b" " * SIZE, 0)
        except OSError:
            os.close(self._descriptor)
            raise

    def write(self, heartbeat: Heartbeat) -> None:
        """Replace the record."""
        data = asdict(heartbeat)
        data["phase"] = None if heartbeat.phase is None else heartbeat.phase[:_PHASE_LENGTH]
        body = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
        os.pwrite(self._descriptor, b"%08x %s" % (zlib.crc32(body), body.ljust(SIZE - 9)), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def read(path: Path) -> Heartbeat | None:
    """The record; ``None`` if there is none yet, or one that is being written at this moment."""
    try:
        record = path.read_bytes()[:SIZE]
    except OSError:
        return None
    checksum, _, body = record.partition(b" ")
    body = body.rstrip()
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        return Heartbeat(**json.loads(body))
    except (ValueError, TypeError):
        return None
