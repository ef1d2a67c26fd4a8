"""What the processes below a runner hold in memory. Standard library only; some hundred microseconds a look."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from finetuned.attempts import identity
from finetuned.attempts.oom import Sample

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def sample(root: int) -> tuple[Sample | None, list[int]]:
    """What all below ``root`` hold together, shared pages counted for each, and who they are.

    No sample where the machine does not tell.
    """
    pids = below(root)
    held = sum(map(_resident, pids))
    fields = _meminfo()
    total, available = fields.get("MemTotal"), fields.get("MemAvailable")
    if total is None or available is None:
        return None, pids
    return Sample(held=held, available=available, total=total), pids


def below(root: int) -> list[int]:
    """All processes below one."""
    if not Path("/proc/thread-self/children").exists():  # a kernel that keeps no lists of children
        return identity.descendants(root)
    found = _children(root)
    for pid in found:  # grows while it is walked
        found.extend(_children(pid))
    return found


def proportional(pids: Iterable[int]) -> int:
    """What processes hold together, each shared page counted once between those that share it. Takes milliseconds.

    Pages of mapped files do not count: the kernel takes them back when it needs them.
    """
    return sum(map(_proportional, pids))


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found.extend(map(int, (thread / "children").read_bytes().split()))
    return found


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return 0


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()[1:]
        held = {
            name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(b":") for line in lines)
        }
        if b"Pss_Anon" in held:
            return held[b"Pss_Anon"] + held.get(b"Pss_Shmem", 0)
        if b"Pss" in held:  # a kernel before 5.4 does not tell them apart
            return held[b"Pss"]
    return _resident(pid)


def _meminfo() -> dict[str, int]:
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return {
            name: int(rest.split()[0]) * 1024
            for name, _, rest in (line.partition(":") for line in lines[:5])
            if rest
        }
    return {}
