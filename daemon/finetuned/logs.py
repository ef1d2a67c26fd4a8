"""The output of attempts: read from the end, from the start, and on while it grows.

A runner renames ``output.log`` to ``output.log.1`` (and that to ``output.log.2``) when it is large, and goes on
in a new file. A reader follows the *inode* to its end before it turns to the next newer file, so no line is lost
or read twice. Everything here blocks: call it off the event loop.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from finetuned.domain.job import Job

NAME = "output.log"
BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _File:
    inode: int
    path: Path


def _files(directory: Path) -> list[_File]:
    """The files of an attempt's output, oldest first; looked at until two looks agree."""
    newest = _look(directory)
    while (again := _look(directory)) != newest:
        newest = again
    return newest


def _look(directory: Path) -> list[_File]:
    numbered: list[tuple[int, _File]] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                suffix = entry.name.removeprefix(NAME)
                if entry.name == NAME or (
                    suffix != entry.name and suffix[:1] == "." and suffix[1:].isdigit()
                ):
                    inode = entry.stat(follow_symlinks=False).st_ino
                    numbered.append((int(suffix[1:] or 0), _File(inode, Path(entry.path))))
    except FileNotFoundError:
        return _look(directory) if directory.is_dir() else []
    return [file for _, file in sorted(numbered, key=lambda pair: -pair[0])]


class OutputReader:
    """A place in the output of one attempt. Close it, or use it in ``with``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self._inode: int | None = None

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
            if self._descriptor is not None and (block := os.read(self._descriptor, BLOCK_BYTES)):
                return block
            newer = self._newer()
            if newer is None:
                return b""
            # It was rotated away: what was written between the read above and the rename is still in it.
            if self._descriptor is not None and (block := os.read(self._descriptor, BLOCK_BYTES)):
                return block
            self._turn_to(newer, 0)

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
        return files[0] if files else None

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
        if offset:
            os.lseek(descriptor, offset, os.SEEK_SET)


class JobOutput:
    """A place in the output of a job: of attempt ``only``, or of all its attempts in order."""

    def __init__(self, directory: Path, only: int | None = None) -> None:
        self._directory = directory
        self._only = only
        self._number = -1 if only is None else only
        self._reader: OutputReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._reader is not None:
            self._reader.close()

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
