"""The output of attempts: read from the end, from the start, from a position, and on while it grows.

A runner renames ``output.log`` when it is large, to a name that tells the position of its first byte in all that was
ever written (``output.log.0``, ``output.log.10000123``), and goes on in a new file; the oldest are removed. A reader
follows the *inode* to its end before it turns to the next newer file, so no line is lost or read twice. Everything
here blocks: call it off the event loop.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from finetuned.domain.job import Job

NAME = "output.log"
BLOCK_BYTES = 64 * 1024

#: the number of an attempt, and an offset in all that it ever printed
Position = tuple[int, int]


class OutputGapError(Exception):
    """The output was rotated away before it was read: the next bytes are not those behind the last ones."""


@dataclass(frozen=True, slots=True)
class _File:
    inode: int
    path: Path
    start: int  # position of its first byte


def _files(directory: Path) -> list[_File]:
    """The files of an attempt's output, oldest first; looked at until two looks agree."""
    newest = _look(directory)
    while (again := _look(directory)) != newest:
        newest = again
    return newest


def _look(directory: Path) -> list[_File]:
    rotated: list[tuple[_File, int]] = []
    newest: _File | None = None
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                start = entry.name.removeprefix(f"{NAME}.")
                if entry.name == NAME:
                    newest = _File(entry.inode(), Path(entry.path), 0)
                elif start != entry.name and start.isascii() and start.isdigit():
                    status = entry.stat(follow_symlinks=False)
                    rotated.append((_File(status.st_ino, Path(entry.path), int(start)), status.st_size))
    except FileNotFoundError:
        return _look(directory) if directory.is_dir() else []
    rotated.sort(key=lambda pair: pair[0].start)
    files = [file for file, _ in rotated]
    if newest is None:
        return files
    # What was rotated last is not written any more once there is a newer file.
    end = rotated[-1][0].start + rotated[-1][1] if rotated else 0
    return [*files, replace(newest, start=end)]


class OutputReader:
    """A place in the output of one attempt. Close it, or use it in ``with``.

    ``position`` is that of the next byte in all that was ever printed; it jumps over what was removed before it was
    read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self._inode: int | None = None
        self.position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read(self) -> bytes:
        """The next bytes, at most ``BLOCK_BYTES``; empty at the end of what is there now."""
        while True:
            if block := self._read_on():
                return block
            newer = self._newer()
            if newer is None:
                return b""
            # It was rotated away: what was written between the read above and the rename is still in it.
            if block := self._read_on():
                return block
            self._turn_to(newer, 0)

    def _read_on(self) -> bytes:
        block = b"" if self._descriptor is None else os.read(self._descriptor, BLOCK_BYTES)
        self.position += len(block)
        return block

    @property
    def end(self) -> int:
        """The position behind the last byte that is there."""
        files = _files(self._directory)
        with suppress(FileNotFoundError):  # removed this moment
            return files[-1].start + files[-1].path.stat().st_size if files else 0
        return self.end

    def seek(self, position: int) -> None:
        """Go to a position, or to the next one that is there."""
        files = _files(self._directory)
        for file in files:
            with suppress(FileNotFoundError):  # retention was faster
                size = file.path.stat().st_size
                if position < file.start + size or file is files[-1]:
                    self._turn_to(file, min(max(position - file.start, 0), size))
                    return

    def seek_tail(self, lines: int) -> int:
        """Go to where the last ``lines`` lines begin; how many of them there are."""
        missing = lines
        start: tuple[_File, int] | None = None
        for file in reversed(_files(self._directory)):
            try:
                found, offset = _tail(file.path, missing)
            except FileNotFoundError:  # retention was faster
                break
            start = (file, offset)
            missing -= found
            if missing <= 0:
                break
        if start is not None:
            self._turn_to(*start)
        return lines - missing

    def _newer(self) -> _File | None:
        files = _files(self._directory)
        inodes = [file.inode for file in files]
        if self._inode in inodes:
            following = inodes.index(self._inode) + 1
            return files[following] if following < len(files) else None
        if not files or self._inode is None:
            return files[0] if files else None
        # It was removed. If nothing tells where the others begin (somebody removed those too), the newest is left.
        return next((file for file in files if file.start >= self.position), files[-1])

    def _turn_to(self, file: _File, offset: int) -> None:
        try:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return  # renamed or removed this moment; the next look finds it
        if os.fstat(descriptor).st_ino != file.inode:
            os.close(descriptor)
            return
        self.close()
        self._descriptor, self._inode = descriptor, file.inode
        self.position = file.start + offset
        if offset:
            os.lseek(descriptor, offset, os.SEEK_SET)


class JobOutput:
    """A place in the output of a job: of attempt ``only``, or of all its attempts in order."""

    def __init__(self, directory: Path, only: int | None = None) -> None:
        self._directory = directory
        self._only = only
        self._number = -1 if only is None else only
        self._reader: OutputReader | None = None
        self.begin: Position = (0, 0)  # of what was read last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._reader is not None:
            self._reader.close()

    @property
    def position(self) -> Position:
        """The position of the next byte."""
        return (0, 0) if self._reader is None else (self._number, self._reader.position)

    def seek(self, job: Job, position: Position) -> None:
        """Go to a position. An offset beyond the end of an attempt that another one followed counts on in that one."""
        attempt, offset = position
        numbers = [number for number in self._numbers(job) if number >= attempt]
        for number in numbers:
            self._open(number)
            assert self._reader is not None
            end = self._reader.end
            if offset < end or number == numbers[-1]:
                self._reader.seek(offset)
                return
            offset -= end

    def seek_tail(self, job: Job, lines: int) -> None:
        """Go to where the last ``lines`` lines begin."""
        for number in reversed(self._numbers(job)):
            self._open(number)
            assert self._reader is not None
            lines -= self._reader.seek_tail(lines)
            if lines <= 0:
                return

    def read(self, job: Job) -> bytes:
        """The next bytes; empty at the end of what is there now. ``job`` must be looked up before each call."""
        while True:
            if self._reader is not None and (block := self._reader.read()):
                self.begin = (self._number, self._reader.position - len(block))
                return block
            following = [number for number in self._numbers(job) if number > self._number or not self._reader]
            if not following:
                return b""
            self._open(following[0])

    def is_final(self, job: Job) -> bool:
        """Whether nothing more will be written, as of ``job``."""
        if self._only is None:
            return not job.is_live
        return any(each.number == self._only and not each.is_live for each in job.attempts)

    def _numbers(self, job: Job) -> list[int]:
        if self._only is not None:
            return [self._only]
        return [each.number for each in job.attempts]

    def _open(self, number: int) -> None:
        if self._reader is not None:
            self._reader.close()
        self._number = number
        self._reader = OutputReader(self._directory / "attempts" / str(number))


def _tail(path: Path, lines: int) -> tuple[int, int]:
    """How many of the last ``lines`` lines are in this file, and the offset where the first of them begins."""
    with path.open("rb") as file:
        position = end = file.seek(0, os.SEEK_END)
        if lines == 0:
            return 0, end
        found = 0
        while position > 0:
            start = max(0, position - BLOCK_BYTES)
            file.seek(start)
            block = file.read(position - start)
            cut = len(block)
            while (newline := block.rfind(b"\n", 0, cut)) >= 0:
                ends_a_line_before = start + newline + 1 < end
                if ends_a_line_before:
                    found += 1
                    if found == lines:
                        return found, start + newline + 1
                cut = newline
            position = start
        return (found + 1 if end else 0), 0
