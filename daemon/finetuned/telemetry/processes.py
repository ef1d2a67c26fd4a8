"""One look at all processes: a table of who is whose child, and what each uses.

One file a process is read, so that a machine with thousands of them costs tens of milliseconds in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

Table = Mapping[int, "Process"]

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """One process. ``started`` is in clock ticks since boot, ``cpu_s`` the processor time that it has used."""

    pid: int
    name: str
    parent: int
    session: int
    started: int
    cpu_s: float
    threads: int
    rss: int


def read_table() -> dict[int, Process]:
    """All processes that can be seen, by pid."""
    names = (entry for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - a Path each is slow
    found = (_read(int(name)) for name in names)
    return {each.pid: each for each in found if each is not None}


def _read(pid: int) -> Process | None:
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    except OSError:  # it has ended meanwhile
        return None
    return parse(text)


def parse(stat: bytes) -> Process | None:
    """The process of a line of ``/proc/PID/stat`` (proc(5)); ``None`` for a zombie, which uses nothing."""
    before, _, after = stat.rpartition(b")")
    pid, _, name = before.partition(b" (")
    fields = after.split()  # from the third of proc(5), the state, on
    if not fields or fields[0] in {b"Z", b"X"}:
        return None
    return Process(
        pid=int(pid),
        name=name.decode(errors="replace"),
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        cpu_s=(int(fields[11]) + int(fields[12])) * _TICK_S,
        threads=int(fields[17]),
        rss=int(fields[21]) * _PAGE,
    )


def ancestors(pid: int, table: Table) -> Iterator[int]:
    """A process, its parent, its parent's parent, as far as they are known."""
    seen: set[int] = set()  # pids are read one after the other: what one saw may be gone, or be another's
    while pid in table and pid not in seen:
        seen.add(pid)
        yield pid
        pid = table[pid].parent


def owner(pid: int, roots: Mapping[int, object], table: Table) -> int | None:
    """Which of ``roots`` a process descends from, or shares the session of; ``None`` if it is a stranger.

    The session finds those whose parents have ended. A runner leads a session of its own.
    """
    for each in ancestors(pid, table):
        if each in roots:
            return each
    session = table[pid].session if pid in table else None
    return session if session in roots else None


def families(roots: Mapping[int, object], table: Table) -> dict[int, list[Process]]:
    """For each root its process and all that belong to it."""
    found: dict[int, list[Process]] = {root: [] for root in roots}
    for pid, process in table.items():
        root = owner(pid, roots, table)
        if root is not None:
            found[root].append(process)
    return found
