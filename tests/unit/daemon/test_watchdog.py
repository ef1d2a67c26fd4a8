"""Who is fed, and who is not: with a service manager's socket that is real."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from finetuned.domain.world import World
from finetuned.notify import notify
from finetuned.watchdog import (
    WAL_BYTES,
    Limits,
    Signs,
    Watchdog,
    ailment,
    is_out_of_files,
    start_budget,
    starting,
    status_of,
)
from finetuned_events import LogBrokenError

LIMITS = Limits(loop_lag_s=5, writer_wait_s=15)
GENEROUS = Limits(loop_lag_s=1e6, writer_wait_s=1e6)


class Manager:
    """A service manager's end of the notify protocol."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.send: Callable[[str], bool] = partial(
            notify, environment={"NOTIFY_SOCKET": str(path)}, patience_s=0
        )

    def heard(self) -> list[str]:
        """What was said since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(1000).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "n")
    yield made
    made.close()


async def at_once() -> None:
    """A writer that answers."""


async def never() -> None:
    """A writer that does not."""
    await anyio.sleep_forever()


async def broken() -> None:
    raise LogBrokenError


async def well() -> str:
    return "Ready"


def watchdog(
    manager: Manager, *, ask_writer: Callable[[], object] = at_once, limits: Limits = GENEROUS
) -> Watchdog:
    return Watchdog(ask_writer=ask_writer, status=well, send=manager.send, period_s=0.004, limits=limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signs", "what"),
    [
        (Signs(0, 0), None),
        (Signs(5, 15), None),
        (Signs(5.1, 0), "the event loop is 5.1 s late"),
        (Signs(0, 15.1), "the log's writer has not answered for 15.1 s"),
        (Signs(0, 0, "gone"), "the log's writer has ended: gone"),
        (Signs(9, 0, "gone"), "the log's writer has ended: gone"),
        (Signs(0, 0, None, out_of_files=True), "it has as many files open as it may"),
    ],
)
def test_the_daemon_is_healthy_while_loop_and_writer_are(signs: Signs, what: str | None) -> None:
    assert ailment(signs, LIMITS) == what


def test_limits_leave_room_for_a_sign_withheld_by_chance() -> None:
    assert Limits.within(30) == LIMITS


async def test_a_healthy_daemon_feeds_the_watchdog_again_and_again(manager: Manager) -> None:
    heard: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watchdog(manager).run)
        with anyio.fail_after(10):
            while heard.count("WATCHDOG=1") < 5:
                await anyio.sleep(0.001)
                heard += manager.heard()
        tasks.cancel_scope.cancel()
    assert heard.count("STATUS=Ready") == 1  # it did not change


async def test_a_writer_that_does_not_answer_stops_the_feed(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as tasks:
        dog = watchdog(manager, ask_writer=never, limits=Limits(loop_lag_s=1e6, writer_wait_s=0))
        tasks.start_soon(dog.run)
        await unwell(dog)
        manager.heard()
        heard = await several(manager)
        tasks.cancel_scope.cancel()
    assert all(each.startswith("STATUS=Unwell: the log's writer has not answered") for each in heard)
    assert caplog.text.count("The watchdog is not fed") == 1


async def test_a_writer_that_has_ended_stops_the_feed(manager: Manager) -> None:
    async with anyio.create_task_group() as tasks:
        dog = watchdog(manager, ask_writer=broken)
        tasks.start_soon(dog.run)
        await unwell(dog)
        manager.heard()
        heard = await several(manager)
        tasks.cancel_scope.cancel()
    assert all(each.startswith("STATUS=Unwell: the log's writer has ended") for each in heard)


async def test_a_loop_that_is_late_stops_the_feed_and_one_that_is_not_starts_it_again(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    busy = True

    async def hog() -> None:
        while busy:
            time.sleep(0.03)  # noqa: ASYNC251 - blocking the loop is the point
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hog)
        dog = watchdog(manager, limits=Limits(loop_lag_s=0.01, writer_wait_s=1e6))
        tasks.start_soon(dog.run)
        await unwell(dog)
        manager.heard()
        heard = await several(manager)
        assert all(each.startswith("STATUS=Unwell: the event loop is") for each in heard)
        busy = False
        with anyio.fail_after(10):
            while "WATCHDOG=1" not in manager.heard():  # noqa: ASYNC110 - nobody says when
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert "The watchdog is fed again" in caplog.text


async def test_a_status_that_cannot_be_had_costs_no_sign_of_life(manager: Manager) -> None:
    dog = Watchdog(ask_writer=at_once, status=broken, send=manager.send, period_s=1)  # type: ignore[arg-type]
    await dog.beat(lag_s=0)
    assert manager.heard() == ["WATCHDOG=1"]


async def test_more_time_is_asked_for_while_the_start_takes_it(manager: Manager) -> None:
    heard: list[str] = []
    async with starting(manager.send, budget_s=60, beat_s=0.001) as ready:
        with anyio.fail_after(10):
            while heard.count("EXTEND_TIMEOUT_USEC=30000000") < 3:
                await anyio.sleep(0.001)
                heard += manager.heard()
        ready.set()
        await anyio.sleep(0.005)
        manager.heard()
        await anyio.sleep(0.005)
        assert manager.heard() == []


async def test_a_start_does_not_get_time_without_end(manager: Manager) -> None:
    async with starting(manager.send, budget_s=0, beat_s=0.001):
        await anyio.sleep(0.005)
        assert manager.heard() == ["STATUS=Starting: reading the log"]


async def test_a_start_that_fails_is_not_held_up(manager: Manager) -> None:
    with pytest.raises(ExceptionGroup, match="unhandled"):
        async with starting(manager.send, budget_s=60):
            raise OSError


def test_a_larger_log_may_take_longer() -> None:
    assert start_budget(0) == 120
    assert start_budget(1 << 30) == 120 + 512


def test_the_status_line_of_an_idle_daemon() -> None:
    assert status_of(World(), 7) == "Ready: 0 jobs at work, 0 waiting; log at event 7"


def test_a_wal_that_a_reader_holds_is_told_of_and_no_reason_to_restart() -> None:
    assert status_of(World(), 7, wal_bytes=2_000_000_000).endswith(
        "; its WAL has 2.0 GB: somebody reads without an end"
    )
    assert status_of(World(), 7, wal_bytes=WAL_BYTES) == status_of(World(), 7)


async def test_a_daemon_that_can_open_no_file_is_not_fed_until_it_can(manager: Manager) -> None:
    full = True
    dog = Watchdog(
        ask_writer=at_once,
        status=well,
        send=manager.send,
        period_s=1,
        limits=GENEROUS,
        out_of_files=lambda: full,
    )
    await dog.beat(lag_s=0)
    assert manager.heard() == ["STATUS=Unwell: it has as many files open as it may"]
    full = False
    await dog.beat(lag_s=0)
    assert manager.heard()[0] == "WATCHDOG=1"


def test_the_kernel_is_asked_whether_another_file_can_be_opened() -> None:
    assert not is_out_of_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # those that are open stay open
        assert is_out_of_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def unwell(dog: Watchdog) -> None:
    with anyio.fail_after(10):
        while dog.ailment is None:  # noqa: ASYNC110 - nobody says when
            await anyio.sleep(0.001)


async def several(manager: Manager) -> list[str]:
    """Three messages or more."""
    heard: list[str] = []
    with anyio.fail_after(10):
        while len(heard) < 3:
            await anyio.sleep(0.001)
            heard += manager.heard()
    return heard
