"""Whether the kernel killed a worker for want of memory, and how sure that is. Standard library only.

The kernel counts such kills for the machine and for each control group, in versions 1 and 2. Where it tells nobody,
what the attempt and the machine had left a moment before is all there is to go by.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final, NamedTuple

#: of the machine's memory: a process that is killed with less available was probably killed for it
SCARCE: Final = 0.05


class Sample(NamedTuple):
    """Bytes: what the attempt's processes hold, and what the machine had available of its total."""

    held: int
    available: int
    total: int


class Kills(NamedTuple):
    """How many processes the kernel has killed for want of memory; ``None`` where it does not say.

    ``group`` counts those of one control group, ``machine`` all since its start.
    """

    group: int | None
    machine: int | None


def count(counter: Path | None, statistics: Path = Path("/proc/vmstat")) -> Kills:
    """Ask the kernel. ``counter`` is the group's file (:func:`counter_of`)."""
    return Kills(None if counter is None else _field(counter), _field(statistics))


def counter_of(group: Path | None, processes: Path = Path("/proc/self")) -> Path | None:
    """The file that counts the kills in a group of version 2; else that of this process's group of version 1."""
    if group is not None:
        return group / "memory.events"
    with contextlib.suppress(OSError):
        for line in (processes / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return Path("/sys/fs/cgroup/memory", path.lstrip("/"), "memory.oom_control")
    return None


def evidence(before: Kills, after: Kills, last: Sample | None, *, shared: bool) -> str | None:
    """Why a worker that was killed by a SIGKILL of nobody known was killed by the kernel; ``None`` if it was not.

    ``shared``: the group that was counted in is not the attempt's alone.
    """
    if before.group is not None and after.group is not None:
        kills = after.group - before.group
        whose = "the control group that it shares with other attempts" if shared else "its control group"
        said = f"the kernel killed it for want of memory: {whose} counts {_kills(kills)}"
        return said + _then(last) if kills > 0 else None
    if before.machine is not None and after.machine is not None:
        kills = after.machine - before.machine
        said = f"the kernel probably killed it for want of memory: the machine counts {_kills(kills)} while it ran"
        return said + _then(last) if kills > 0 else None
    if last is None or last.available > SCARCE * last.total:
        return None
    return f"the kernel may have killed it for want of memory, of which nothing here keeps count{_then(last)}"


def bytes_text(count: float) -> str:
    """A size for people, in powers of ten."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _kills(count: int) -> str:
    return "1 such kill" if count == 1 else f"{count} such kills"


def _then(last: Sample | None) -> str:
    if last is None:
        return ""
    return (
        f"; shortly before, its processes held {bytes_text(last.held)}, and of the machine's"
        f" {bytes_text(last.total)} there were {bytes_text(last.available)} left"
    )


def _field(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
