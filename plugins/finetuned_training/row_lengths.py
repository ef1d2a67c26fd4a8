"""How many rows a file has and how long they are, at a glance: by its lines, without a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from finetuned_training.local_path import local_path
from finetuned_training.small_json import open_regular

LINE_SUFFIXES = (".jsonl", ".ndjson")  # a row a line
BYTES_A_TOKEN = 3.5  # of a line: English has four and more, other scripts, code and figures fewer
GLANCE_BYTES = 8 << 20  # files up to here are looked at: some milliseconds


#: bytes of a line that become one sequence
Width = Callable[[bytes], int]


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a file: how many, and the bytes of the longest that become one sequence."""

    count: int
    longest: int


def longest_row(dataset: str, width: Width = len) -> int | None:
    """Tokens of the longest row, about; ``None`` for what cannot be told from its lines at a glance.

    ``width`` says how many bytes of a line become one sequence; never more than it has.
    """
    found = lines(dataset, width)
    return None if found is None or not found.count else max(1, int(found.longest / BYTES_A_TOKEN))


def lines(dataset: str, width: Width = len) -> Lines | None:
    """The rows of a file with one a line; ``None`` for other forms, for large files and for what cannot be read."""
    path = local_path(dataset)
    if path.suffix.lower() not in LINE_SUFFIXES:
        return None
    try:
        found = path.stat()
        if found.st_size > GLANCE_BYTES:
            return None
        return _looked_at(path, found.st_mtime_ns, found.st_size, width)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _looked_at(path: Path, _changed: int, _size: int, width: Width) -> Lines:
    count = longest = 0
    with open_regular(path) as file:
        for line in file:
            if line.strip():
                count += 1
                row = line.rstrip(b"\r\n")
                if len(row) > longest:
                    longest = max(longest, width(row))
    return Lines(count, longest)
