"""The most memory that a worker took: its own by the kernel's mark, what its children have to themselves, torch's on GPUs.

The kernel keeps the highest resident size of a process by itself. Children (loader processes) share most of their
pages with others, so only what is theirs alone is added, as it is found at each look.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

PROC = Path("/proc")


class PeakMemory:
    """Call :meth:`look` now and then, and :meth:`figures` at the end. ``proc`` is where the kernel tells."""

    def __init__(self, proc: Path = PROC, pid: int | None = None) -> None:
        self._proc = proc
        self._pid = os.getpid() if pid is None else pid
        self._children = 0  # bytes, the most at a look

    def look(self) -> None:
        """See what the children have now."""
        self._children = max(self._children, sum(map(self._private, self._descendants(self._pid))))

    def figures(self) -> dict[str, int]:
        """``host_bytes``, and ``device_bytes`` where a GPU was used; without what cannot be told."""
        self.look()
        found: dict[str, int] = {}
        own = _kilobytes(self._proc / str(self._pid) / "status", "VmHWM:")
        if own is not None:
            found["host_bytes"] = own + self._children
        device = _device_bytes(sys.modules.get("torch"))
        if device:
            found["device_bytes"] = device
        return found

    def _descendants(self, pid: int) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(OSError):
            for task in (self._proc / str(pid) / "task").iterdir():
                with contextlib.suppress(OSError):  # a thread that ended
                    found += map(int, (task / "children").read_text(encoding="ascii").split())
        return found + [each for child in found for each in self._descendants(child)]

    def _private(self, pid: int) -> int:
        rollup = self._proc / str(pid) / "smaps_rollup"
        return sum(_kilobytes(rollup, name) or 0 for name in ("Private_Clean:", "Private_Dirty:"))


def _kilobytes(file: Path, name: str) -> int | None:
    """A figure of a file of /proc, in bytes; ``None`` if it is not there (any more)."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return None


def _device_bytes(torch: Any) -> int:
    """What torch's allocator held at most, on all GPUs together; nothing is imported or started for it."""
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return sum(torch.cuda.max_memory_reserved(index) for index in range(torch.cuda.device_count()))
