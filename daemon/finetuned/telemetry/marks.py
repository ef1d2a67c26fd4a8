"""Which processes are an attempt's by the mark in their environment, and which GPUs' device nodes they have open.

A loader process of a trainer that was killed may have lost its parent and never computed on a GPU, and still hold its
memory by the descriptors that it inherited. Another daemon on the same host marks its processes alike: those are
strangers here, and a job whose files are not below this daemon's ``jobs`` is another's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from finetuned_sdk.bundle import ATTEMPT_VARIABLE

NODE: Final = "/dev/nvidia"  # and the number of a GPU
_MARK: Final = f"\0{ATTEMPT_VARIABLE}=".encode()


class Mark(NamedTuple):
    """Whose a process is: job and number of an attempt. ``nodes`` are the numbers of the device nodes it has open."""

    job: str
    attempt: int
    nodes: frozenset[int]


Marks = Mapping[int, Mark]  # by pid


def read(jobs: Path, processes: Path = Path("/proc")) -> dict[int, Mark]:
    """All processes that can be seen and are marked as of a job whose files are below ``jobs``.

    Reads a file of every process: call it in a thread.
    """
    found = {}
    for name in os.listdir(processes):  # noqa: PTH208 - a Path each is slow
        if name.isdigit() and (mark := _read(processes / name, jobs)) is not None:
            found[int(name)] = mark
    return found


def _read(process: Path, jobs: Path) -> Mark | None:
    try:
        environment = b"\0" + (process / "environ").read_bytes()
    except OSError:  # gone, or another user's
        return None
    _, found, rest = environment.partition(_MARK)
    job, _, tail = rest.partition(b"\0")[0].decode(errors="replace").partition("/")
    number = tail.partition("/")[0]
    if not found or not number.isdecimal() or not _is_dir(jobs / job / "attempts"):
        return None
    return Mark(job, int(number), _nodes(process / "fd"))


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # anybody may put anything into an environment: a name that is too long, say
        return False


def _nodes(descriptors: Path) -> frozenset[int]:
    found = set()
    try:
        for name in os.listdir(descriptors):  # noqa: PTH208 - a Path each is slow
            target = os.readlink(descriptors / name)  # noqa: PTH115 - a Path each is slow
            number = target.removeprefix(NODE)
            if number != target and number.isdecimal():
                found.add(int(number))
    except OSError:  # it has ended meanwhile
        pass
    return frozenset(found)
