"""The output file and the error file of a batch: exactly one line for each ``custom_id`` over both, in the input's order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from finetuned_batch import answers, requests
from finetuned_batch.requests import Requests
from finetuned_batch.segments import Results

KIND: Final = "file:batch_output"  # of both: the purpose that OpenAI gives either file


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is said of requests without a result."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Names:
    """What the files of a job are called."""

    job: str

    @property
    def output(self) -> str:
        """The file of what was answered."""
        return f"{self._batch}_output.jsonl"

    @property
    def errors(self) -> str:
        """The file of what was not."""
        return f"{self._batch}_error.jsonl"

    @property
    def _batch(self) -> str:
        return f"batch_{self.job.removeprefix('job-')}"


def write(
    directory: Path, job: str, found: Requests, results: Results, unfinished: Unfinished | None = None
) -> tuple[Path, ...]:
    """Write both files anew; those that have lines.

    Raises ``KeyError`` if a result is missing and ``unfinished`` does not say what is told of it.
    """
    names = Names(job)
    paths = directory / names.output, directory / names.errors
    parts = [path.with_name(f".{path.name}.part") for path in paths]
    with ExitStack() as stack:
        output, errors = (stack.enter_context(part.open("wb")) for part in parts)
        for line, is_success in _lines(job, found, results, unfinished):
            (output if is_success else errors).write(line)
    return tuple(path for path, part in zip(paths, parts, strict=True) if _settled(part, path))


def _lines(
    job: str, found: Requests, results: Results, unfinished: Unfinished | None
) -> Iterator[tuple[bytes, bool]]:
    with ExitStack() as stack:
        segments = [stack.enter_context(path.open("rb")) for path in results.paths]
        for row, custom_id in zip(found.rows, requests.custom_ids(found), strict=True):
            place = results.places.get(row.key)
            if place is not None:
                descriptor = segments[place.segment].fileno()
                yield os.pread(descriptor, place.length, place.offset), place.is_success
            elif unfinished is not None:
                told = answers.unfinished(job, custom_id, unfinished.code, unfinished.message)
                yield answers.encode(told), False
            else:
                raise KeyError(custom_id)


def _settled(part: Path, path: Path) -> bool:
    """Give a file its name if it has lines, and remove it if not."""
    if part.stat().st_size:
        part.replace(path)
        return True
    part.unlink()
    path.unlink(missing_ok=True)
    return False
