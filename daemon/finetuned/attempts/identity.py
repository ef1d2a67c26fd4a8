"""Which process is which: by boot id, pid and start time, and by what it carries in its environment.

Standard library only: the runner uses it too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from finetuned_sdk.bundle import ATTEMPT_VARIABLE, RunnerIdentity

#: What pidfd_open says of a pid that is nobody's, or (by the kernel's version) the id of another's thread.
_GONE: Final = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})


@cache
def boot_id() -> str:
    """The kernel's name for this boot: process ids mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; ``None`` if there is none."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def ran_s(process: RunnerIdentity) -> float:
    """Seconds since the start of a process of this boot, those of a suspended machine included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s(process)


def started_s(process: RunnerIdentity) -> float:
    """Seconds from its boot to the start of a process, those of a suspended machine included."""
    return process.start_time / os.sysconf("SC_CLK_TCK")


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal: sent to one without, it may be the end of it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def state(pid: int) -> str | None:
    """What a process does, in the kernel's letters: T is stopped, Z dead and not reaped; ``None`` if there is none."""
    fields = _stat(pid)
    return None if fields is None else fields[0]


def own() -> RunnerIdentity:
    """The identity of this process."""
    pid = os.getpid()
    started = start_time(pid)
    assert started is not None
    return RunnerIdentity(boot_id=boot_id(), pid=pid, start_time=started, process_group=os.getpgid(0))


def open_process(identity: RunnerIdentity) -> int | None:
    """A pidfd of exactly this process; ``None`` if it is gone. The caller closes it.

    The descriptor is opened before the start time is compared: from then on the pid cannot change hands.
    """
    if identity.boot_id != boot_id():
        return None
    descriptor = _open(identity.pid)
    if descriptor is None:
        return None
    if start_time(identity.pid) != identity.start_time:
        os.close(descriptor)
        return None
    return descriptor


def is_alive(process: RunnerIdentity) -> bool:
    """Whether exactly this process lives; one that has ended and was not reaped yet does not."""
    descriptor = open_process(process)
    if descriptor is None:
        return False
    try:
        return not has_ended(descriptor)
    finally:
        os.close(descriptor)


def has_ended(descriptor: int) -> bool:
    """Whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def descendants(pid: int) -> list[int]:
    """All processes below one, children before grandchildren; zombies among them."""
    children: dict[int, list[int]] = {}
    for other in _pids():
        fields = _stat(other)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(other)
    found = list(children.get(pid, ()))
    for process in found:  # grows while it is walked
        found.extend(children.get(process, ()))
    return found


def leftovers(tag: str, runner: RunnerIdentity | None) -> list[int]:
    """The living processes of an attempt whose runner is dead: by their environment or by their session.

    The session finds those that have overwritten their environment, as ``setproctitle`` does. A tag that
    ends with a slash stands for all that begin so.
    """
    needle, session = _needle(tag), _session(runner)
    return [pid for pid in _pids() if _belongs(pid, needle, session)]


def kill_leftovers(tag: str, runner: RunnerIdentity | None) -> int:
    """Kill what is left of an attempt whose runner is dead; how many processes there were."""
    needle, session = _needle(tag), _session(runner)
    found = leftovers(tag, runner)
    for pid in found:
        descriptor = _open(pid)
        if descriptor is None:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            try:
                if _belongs(pid, needle, session):  # asked again now that the pid cannot change hands
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)
    return len(found)


def kill(pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Send a signal to a process if it is still there and ours."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal_number)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _needle(tag: str) -> bytes:
    return f"\0{ATTEMPT_VARIABLE}={tag}".encode() + (b"" if tag.endswith("/") else b"\0")


def _session(runner: RunnerIdentity | None) -> int | None:
    # The runner leads a session of its pid's number. That number means nothing after a reboot, nor once
    # another process has it: the kernel gives it out again only when the session has no member left.
    if runner is None or runner.boot_id != boot_id():
        return None
    return runner.pid if start_time(runner.pid) in {None, runner.start_time} else None


def _belongs(pid: int, needle: bytes, session: int | None) -> bool:
    fields = _stat(pid)
    if fields is None or fields[0] == "Z" or pid == os.getpid():
        return False
    return (session is not None and int(fields[3]) == session) or needle in b"\0" + _environment(pid)


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command: state, parent, group, session, …; 19 is the start."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or another user's
        return b""
