"""The ladder's patience when orders follow one another; what it does to real processes is an acceptance test."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import pytest

from finetuned.attempts.ladder import Ladder
from finetuned.attempts.ports import Intervention, StopOrder
from finetuned.attempts.testing import Entry, MemoryAttemptLog, fake_spec
from finetuned.attempts.watch import ProcessWatch
from finetuned_sdk.bundle import Bundle

HOUR = 3600.0


class Signalled(ProcessWatch):
    """A runner that is told of, and does nothing."""

    def __init__(self) -> None:
        super().__init__(None)
        self.terminated = anyio.Event()

    def signal(self, number: signal.Signals) -> None:
        if number == signal.SIGTERM:
            self.terminated.set()


class Rig:
    def __init__(self, path: Path) -> None:
        log = MemoryAttemptLog()
        self.entry: Entry = log.start(fake_spec())
        self.bundle = Bundle(path)
        self.ladder = Ladder(self.entry.attempt, self.bundle, log)
        self.watch = Signalled()

    async def asked(self, reason: str) -> None:
        while self.bundle.read_control().reason != reason:  # noqa: ASYNC110 - a file tells nobody
            await anyio.sleep(0.005)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.mark.parametrize(
    ("first", "second"), [(0.2, HOUR), (HOUR, 0.2)], ids=["no longer than the first", "shorter"]
)
async def test_an_order_after_another_gives_the_worker_no_more_time(
    rig: Rig, first: float, second: float
) -> None:
    """As of somebody who pauses and resumes by turns: a worker that hears nothing is not kept by that."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.ladder.run, rig.watch)
        with anyio.fail_after(20):
            rig.ladder.order(StopOrder(reason="a pause", checkpoint=True, patience_s=first))
            await rig.asked("a pause")
            rig.ladder.order(StopOrder(reason="another", checkpoint=True, patience_s=second))
            await rig.asked("another")
            await rig.watch.terminated.wait()
        tasks.cancel_scope.cancel()
    told = [each for each in rig.entry.interventions if isinstance(each, Intervention)]
    assert {each.action for each in told} == {"terminate"}
    assert "did not stop within 3600 s" not in repr(told)


async def test_the_same_order_with_less_patience_takes_the_time_that_was_left(rig: Rig) -> None:
    """As of somebody who pauses again and does not want to wait so long any more."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.ladder.run, rig.watch)
        with anyio.fail_after(20):
            rig.ladder.order(StopOrder(reason="a pause", checkpoint=True, patience_s=HOUR))
            await rig.asked("a pause")
            await anyio.wait_all_tasks_blocked()
            rig.ladder.order(StopOrder(reason="a pause", checkpoint=True, patience_s=0.05))
            await rig.watch.terminated.wait()
        tasks.cancel_scope.cancel()


async def test_the_same_order_again_changes_nothing(rig: Rig) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.ladder.run, rig.watch)
        with anyio.fail_after(20):
            order = StopOrder(reason="a pause", checkpoint=True, patience_s=HOUR)
            rig.ladder.order(order)
            await rig.asked("a pause")
            counter = rig.bundle.read_control().counter
            for _ in range(3):
                rig.ladder.order(order)
                await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert rig.bundle.read_control().counter == counter
    assert not rig.watch.terminated.is_set()
