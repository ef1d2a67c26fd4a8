"""A control group (version 2) of an attempt's own, where the service manager has handed over a part of its tree.

systemd marks a group that it has handed over with the attribute ``user.delegate``. A group that has controllers for
those below it may hold no process itself, so the daemon must not be in it but in one below (``DelegateSubgroup=``):
else systemd could not start the daemon again while an attempt runs. Where it is not so, no group is made.
Standard library only: the runner uses it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
PREFIX: Final = "attempt-"
_DELEGATED: Final = "user.delegate"
_PERIOD_US: Final = 100_000  # over which the share of the processors is counted; the kernel's default
_LEAST_QUOTA_US: Final = 1_000  # the kernel takes no less
_STALE_S: Final = 60.0  # an empty group of that age is nobody's start
_REMOVE_TRIES: Final = 40  # a group is busy for a moment after its last process was reaped
_REMOVE_PAUSE_S: Final = 0.005


class NoGroupError(Exception):
    """No group can be made here, and why."""


def own(root: Path = ROOT, processes: Path = Path("/proc/self")) -> Path | None:
    """This process's group; ``None`` where groups of version 2 do not have the controllers."""
    if not (root / "cgroup.controllers").exists():
        return None
    with contextlib.suppress(OSError):
        for line in (processes / "cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::/"):
                return root / line.removeprefix("0::/")
    return None


def delegated(group: Path | None) -> Path:
    """The group below which this process may make others: the one above its own. Raises ``NoGroupError``."""
    if group is None:
        raise NoGroupError("this machine has no control groups of version 2")
    if _is_delegated(group.parent):
        return group.parent
    if _is_delegated(group):
        raise NoGroupError("the unit does not set DelegateSubgroup=")
    raise NoGroupError("no control group was delegated to the daemon")


def _is_delegated(group: Path) -> bool:
    try:
        return os.getxattr(group, _DELEGATED) == b"1"
    except OSError:
        return False


class Group:
    """One attempt's group. What its files say is read as long as it is there."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        self._home = home  # where the runner itself stays
        self._has_runner = False  # which could not go back there

    @classmethod
    def create(cls, name: str, home: Path | None, *, memory: float | None, cpu: float | None) -> Group:
        """Make a group beside ``home``, with a limit in bytes and one in processors. Raises ``NoGroupError``."""
        parent = delegated(home)
        assert home is not None
        tidy(parent)
        group = cls(parent / f"{PREFIX}{name}", home)
        wanted = [each for each, limit in (("memory", memory), ("cpu", cpu)) if limit is not None]
        try:
            for controller in wanted:
                _write(parent / "cgroup.subtree_control", f"+{controller}")
            group.path.mkdir()
            group._limit(memory, cpu)
        except OSError as error:
            group.remove()
            raise NoGroupError(f"{error.filename or group.path}: {error.strerror}") from None
        return group

    def _limit(self, memory: float | None, cpu: float | None) -> None:
        if memory is not None:
            _write(self.path / "memory.max", str(int(memory)))
            _write(self.path / "memory.oom.group", "1")  # half an attempt is of no use
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                _write(self.path / "memory.swap.max", "0")
        if cpu is not None:
            quota = max(_LEAST_QUOTA_US, int(cpu * _PERIOD_US))
            _write(self.path / "cpu.max", f"{quota} {_PERIOD_US}")

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """What is started meanwhile is in the group from its first moment on. This process goes back at the end.

        Raises ``OSError`` if the kernel refuses it.
        """
        _write(self.path / "cgroup.procs", "0")
        try:
            yield
        finally:
            try:
                _write(self._home / "cgroup.procs", "0")
            except OSError:  # it stays, and must not be killed together with the rest
                self._has_runner = True
                with contextlib.suppress(OSError):
                    _write(self.path / "memory.oom.group", "0")

    def kill(self) -> None:
        """Kill all that is in it at once; a kernel before 5.14 cannot, and it is not done while the runner is in it."""
        if self._has_runner:
            return
        with contextlib.suppress(OSError):
            _write(self.path / "cgroup.kill", "1")

    def remove(self) -> None:
        """Remove it; nothing happens if it is not there or not empty."""
        for _ in range(_REMOVE_TRIES):
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_REMOVE_PAUSE_S)
            else:
                return


def tidy(parent: Path) -> None:
    """Remove what runners that were killed have left: groups with nobody in them."""
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_ctime > _STALE_S:
                path.rmdir()  # the kernel refuses it while there is a process in it


def _write(path: Path, text: str) -> None:
    # One write(2): the kernel reads each as a whole command. Never made if it is not there.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
