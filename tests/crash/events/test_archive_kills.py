"""A process is killed at every step of an archiving: the log is whole or sealed, and the next try ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.crash.events.test_sigkill import child_module

from finetuned_events import NewEvent, Upcasters, archive, seals

EVENTS, UPTO = 60, 40
STEPS = frozenset({"execute", "executemany", "fsync", "link", "unlink", "mkdir", "fchmod", "writelines"})


def make(path: Path) -> None:
    async def work() -> None:
        async with child_module().open_log(path) as log:
            for number in range(EVENTS):
                await log.append([NewEvent(f"job/{number % 5}", "noted", {"value": number})])

    asyncio.run(work())


def archive_until_killed(path: Path, step: int) -> None:
    """Archive in this process, which kills itself before the step of that number."""
    left = step
    armed = threading.Event()

    def count(_frame: object, event: str, called: object) -> None:
        nonlocal left
        if event == "c_call" and armed.is_set() and getattr(called, "__name__", "") in STEPS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def work() -> None:
        async with child_module().open_log(path) as log:
            armed.set()
            await log.archive(UPTO)

    threading.setprofile(count)
    sys.setprofile(count)
    asyncio.run(work())


def in_a_child(path: Path, step: int) -> bool:
    """Whether a child that was to be killed at the step came that far."""
    pid = os.fork()
    if pid == 0:
        try:
            archive_until_killed(path, step)
        finally:
            sys.setprofile(None)
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.crash
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_step_leaves_a_log_that_is_whole_or_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr(seals, "_SWEPT", 7)
    original = tmp_path / "original.db"
    make(original)
    with closing(sqlite3.connect(original)) as raw:
        before = raw.execute("SELECT seq, hash FROM events ORDER BY seq").fetchall()
    step, whole, sealed = 0, 0, 0
    while True:
        step += 1
        path = tmp_path / str(step) / "events.db"
        path.parent.mkdir()
        path.write_bytes(original.read_bytes())
        if not in_a_child(path, step):
            break
        whole, sealed = (whole + 1, sealed) if asyncio.run(opened(path, before)) else (whole, sealed + 1)
    record_property("steps", step - 1)
    assert whole > 20, whole  # the archive is written and checked before
    assert sealed > 5, sealed  # and swept after the one transaction


async def opened(path: Path, before: list[tuple[int, bytes]]) -> bool:
    """Check what a kill left and end the archiving; whether the log was whole still."""
    async with child_module().open_log(path) as log:
        whole: bool = log.sealed == 0
        assert log.sealed in {0, UPTO}
        assert (await log.verify()).problems == ()
        assert (await log.rebuild()).equal
        assert [event.seq for event in await log.read()] == list(range(log.sealed + 1, EVENTS + 1))
        if whole:
            await log.archive(UPTO)
        await log.sweep()
        await log.append([NewEvent("job/1", "noted", {"value": 1})])
        assert (await log.verify()).problems == ()
        assert (await log.rebuild()).equal
        (seal,) = log.seals
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT seq, hash FROM events ORDER BY seq").fetchall()[:-1] == before[UPTO:]
    assert archive.check(seal.file).head.hash == before[UPTO - 1][1]
    archived = [event.seq for page in archive.pages(seal.file, Upcasters()) for event in page]
    assert archived == list(range(1, UPTO + 1))
    assert [each.name for each in seal.file.parent.iterdir()] == [seal.file.name]
    return whole
