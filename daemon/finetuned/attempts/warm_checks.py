"""Whether this process may be forked: it holds no thread but its own, little memory, and nothing of a GPU.

A fork has only the thread that made it. A pool of threads that exists before (OpenMP's after one parallel operation)
hangs in the child, and a child cannot use CUDA if its parent has. So each is looked for, after the imports.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any, Final

#: pyarrow's allocator has a thread of its own, and makes it anew in a fork
_HARMLESS_THREADS: Final = ("jemalloc_bg_thd",)
_CUDA_DEVICE: Final = "/dev/nvidia-uvm"  # opened when CUDA is initialised, and by nothing less


def problem(memory_limit: int, proc: Path = Path("/proc/self")) -> str | None:
    """Why no fork of this process would be sound; ``None`` if each would be. ``memory_limit``: bytes."""
    torch = sys.modules.get("torch")
    return (
        _memory(memory_limit, proc)
        or _threads(proc)
        or _devices(proc)
        or (None if torch is None else _torch(torch))
    )


def held_bytes(proc: Path = Path("/proc/self")) -> int:
    """The memory that this process holds."""
    return int((proc / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _memory(limit: int, proc: Path) -> str | None:
    held = held_bytes(proc)
    if held > limit:
        return f"it holds {held >> 20} MiB after its imports, more than the {limit >> 20} MiB of warm_memory_bytes"
    return None


def _threads(proc: Path) -> str | None:
    if threading.active_count() > 1:
        names = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
        return f"the imports have started threads: {', '.join(names)}"
    native = {
        (task / "comm").read_text(encoding="utf-8", errors="replace").strip()
        for task in (proc / "task").iterdir()
        if task.name != str(os.getpid())
    }
    native.difference_update(_HARMLESS_THREADS)
    return f"the imports have started threads: {', '.join(sorted(native))}" if native else None


def _devices(proc: Path) -> str | None:
    for each in (proc / "fd").iterdir():
        try:
            target = str(each.readlink())
        except FileNotFoundError:  # the one that lists them
            continue
        if target.startswith(_CUDA_DEVICE):
            return "the imports have initialised CUDA"
    return None


def _torch(torch: Any) -> str | None:
    if torch.cuda.is_initialized():
        return "the imports have initialised CUDA"
    if torch.get_num_threads() != 1:
        return f"torch would compute with {torch.get_num_threads()} threads before the fork"
    return _probe(torch)


def _probe(torch: Any) -> str | None:
    """Ask a fork whether it could use CUDA. torch notes in each whether its parent has."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(1 if torch.cuda._is_in_bad_fork() else 0)  # noqa: SLF001 - what torch itself asks
        finally:
            os._exit(2)
    _, status = os.waitpid(pid, 0)
    return None if status == 0 else "a fork of it could not use CUDA"
