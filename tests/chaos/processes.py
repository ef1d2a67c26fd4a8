"""Processes as the kernel knows them: whose they are, and whether two attempts of one job ever live at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MARK = b"FINETUNED_ATTEMPT="


@dataclass(frozen=True, slots=True)
class Marked:
    """A living process that carries the mark of an attempt."""

    pid: int
    job: str
    attempt: int

    @property
    def is_worker(self) -> bool:
        """Whether it is the trainer itself, and not a process that it started."""
        return b"finetuned_sdk.worker" in _read(self.pid, "cmdline")


def marked(jobs: Collection[str]) -> list[Marked]:
    """All living processes of the jobs' attempts."""
    return [process for pid in _pids() if (process := _marked(pid)) is not None and process.job in jobs]


def runners(jobs_dir: Path) -> list[int]:
    """The runners of attempts whose bundles are below a directory."""
    below = f"{jobs_dir}/".encode()
    return [
        pid
        for pid in _pids()
        if b"finetuned.attempts.runner" in (command := _read(pid, "cmdline")) and below in command
    ]


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; whether the process was there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def state(pid: int) -> str:
    """One letter: R, S, D, T, Z …; empty when it is gone."""
    return _read(pid, "stat").rpartition(b")")[2].strip()[:1].decode()


def parent(pid: int) -> int:
    """The parent's process id; 0 when it is gone."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


class TwinWatch:
    """Looks again and again for a job with living processes of two attempts. Use it as a context manager."""

    def __init__(self, jobs: Callable[[], Collection[str]], *, pause_s: float = 0.1) -> None:
        self.found: list[str] = []
        self.looks = 0
        self._jobs = jobs
        self.pause_s = pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="twins")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            while not self._over.wait(self.pause_s):
                self.look()
        except Exception as error:  # noqa: BLE001 - a watch that ended would find nothing any more
            self.found.append(f"the watch for twins broke off: {error!r}")

    def look(self) -> None:
        """Look once."""
        self.looks += 1
        first: dict[str, Marked] = {}
        for process in marked(self._jobs()):
            other = first.setdefault(process.job, process)
            # The older one may have ended between the two looks: it is asked again, after the younger was seen.
            if other.attempt != process.attempt and _marked(other.pid) == other and _marked(process.pid):
                self.found.append(
                    f"job {process.job}: attempts {other.attempt} and {process.attempt} at once"
                )


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _marked(pid: int) -> Marked | None:
    """The memory of a process that has ended, and so its environment, is gone: a zombie has no mark."""
    for variable in _read(pid, "environ").split(b"\0"):
        if variable.startswith(MARK):
            job, _, rest = variable.removeprefix(MARK).decode(errors="replace").partition("/")
            number, _, _ = rest.partition("/")
            return Marked(pid, job, int(number)) if number.isdecimal() else None
    return None
