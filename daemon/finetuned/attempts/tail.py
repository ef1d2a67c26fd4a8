"""Reading a spool while it grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from finetuned_sdk import spool
from finetuned_sdk.spool import BadLine, Fact

READ_SIZE: Final = 1 << 18  # bytes a batch at most, more only for a single longer line
FACTS_PER_SECOND: Final = 100  # of the worker's clock; beyond it progress is skipped


class SpoolTail:
    """Gives out the lines of a spool after ``line``, each once, in batches. Reads files: call it in a thread."""

    def __init__(self, path: Path, *, line: int) -> None:
        self._path = path
        self._line = 0  # the last line before the offset
        self._offset = 0
        self._recorded = line
        self._second = 0
        self._in_second = 0
        self.skipped = 0  # progress lines beyond the cap
        self.artifacts: dict[str, None] = {}  # paths that were published, in order
        self.checkpoints: dict[str, None] = {}  # paths of checkpoints that are kept
        self.work = 0  # lines that tell of work, those that are in the log already included
        self.step: int | None = None  # that was told of last
        self.phase: str | None = None

    def read(self) -> list[Fact | BadLine]:
        """The next lines; empty at the end of what is there, also while the last line is unfinished."""
        while True:
            lines, more = self._read_block()
            self._note_paths(lines)
            self._note_work(lines)
            wanted = [line for line in lines if line.line > self._recorded and self._within_cap(line)]
            if wanted or not more:
                return wanted

    def _read_block(self) -> tuple[list[Fact | BadLine], bool]:
        size = READ_SIZE
        while True:
            data = self._bytes(size)
            lines, used = spool.parse(data, after=self._line)
            if used or len(data) < size:
                break
            size *= 2  # one line fills the block
        self._offset += used
        self._line += len(lines)
        return lines, bool(used)

    def _bytes(self, size: int) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(descriptor, size, self._offset)
        finally:
            os.close(descriptor)

    def _note_paths(self, lines: list[Fact | BadLine]) -> None:
        for line in lines:
            match line:
                case Fact(type="artifact", data={"path": str(path)}):
                    self.artifacts[path] = None
                case Fact(type="checkpoint", data={"path": str(path)}):
                    self.checkpoints[path] = None
                case Fact(type="checkpoint_discarded", data={"path": str(path)}):
                    self.checkpoints.pop(path, None)

    def _note_work(self, lines: list[Fact | BadLine]) -> None:
        self.work += len(lines)
        for line in lines:
            match line:
                case Fact(type="phase", data={"phase": str(phase)}):
                    self.phase = phase
                case Fact(type="progress", data={"current_step": int(step)}) if step > 0:
                    self.step = step

    def _within_cap(self, line: Fact | BadLine) -> bool:
        if isinstance(line, BadLine):
            return True
        # By the time of the fact, not of its reading: catching up after a restart skips nothing.
        second = line.at // 1_000_000
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if line.type == "progress" and self._in_second > FACTS_PER_SECOND:
            self.skipped += 1
            return False
        return True
