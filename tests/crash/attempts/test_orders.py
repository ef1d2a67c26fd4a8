"""Daemon, runner, trainer and a child of the trainer, killed in every order that there is."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from finetuned.attempts import identity
from finetuned.attempts.launcher import LocalExecutor
from finetuned.attempts.ports import Ending
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.testing import MemoryAttemptLog
from finetuned_sdk.bundle import Bundle, RunnerIdentity

ORDERS = list(itertools.permutations(("runner", "trainer", "child")))
NOTHING_LEFT_WITHIN = 10.0  # seconds

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]

DAEMON = """
import json, sys
from pathlib import Path
import anyio
from finetuned.attempts.launcher import LocalExecutor
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.testing import MemoryAttemptLog, fake_spec

WORK = {"steps": 100_000, "step_seconds": 0.05, "spawn_children": 1, "ignore_sigterm": True}

async def main():
    log, jobs = MemoryAttemptLog(), [f"job-{number}" for number in range(int(sys.argv[2]))]
    for job in jobs:
        log.start(fake_spec(job, params=WORK))
    supervision = Supervision(Path(sys.argv[1]), log, LocalExecutor())
    async with anyio.create_task_group() as tasks:
        await tasks.start(supervision.run)
        for job in jobs:
            await log.until_fact(job, 1, "progress")
        print(json.dumps([log.entries[job, 1].facts[0].data["pid"] for job in jobs]), flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@dataclass(frozen=True)
class Family:
    """The processes of one attempt."""

    job: str
    runner: RunnerIdentity
    tag: str
    pids: dict[str, int]

    @classmethod
    def of(cls, jobs: Path, job: str, trainer: int) -> Family:
        bundle = Bundle(jobs / job / "attempts" / "1")
        runner, tag = bundle.read_runner(), bundle.read_spec().tag
        assert runner is not None
        deadline = time.monotonic() + 20
        while len(work := identity.leftovers(tag, None)) < 3:  # the trainer, its child, and that one's
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child = next(pid for pid in work if pid != trainer)
        return cls(job, runner, tag, {"runner": runner.pid, "trainer": trainer, "child": child})

    def kill(self, victims: tuple[str, ...]) -> None:
        for victim in victims:
            with suppress(ProcessLookupError):  # the one before has taken it along
                os.kill(self.pids[victim], signal.SIGKILL)

    def alive(self) -> list[int]:
        alone = [self.runner.pid] if identity.is_alive(self.runner) else []
        return identity.leftovers(self.tag, self.runner) + alone


@contextmanager
def families(jobs: Path) -> Iterator[tuple[subprocess.Popen[str], list[Family]]]:
    """A daemon process with as many attempts as there are orders."""
    command = [sys.executable, "-c", DAEMON, str(jobs), str(len(ORDERS))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        trainers = json.loads(daemon.stdout.readline())
        found = [Family.of(jobs, f"job-{number}", pid) for number, pid in enumerate(trainers)]
        try:
            yield daemon, found
        finally:
            daemon.kill()
            for family in found:
                identity.kill(family.runner.pid)
                identity.kill_leftovers(family.tag, family.runner)


class ProvenLog(MemoryAttemptLog):
    """Looks, whenever an attempt is said to have ended, whether anything of it is alive.

    What comes after an attempt comes after its end, so nothing alive there means never two trainers of one job.
    """

    def __init__(self, families: list[Family]) -> None:
        super().__init__()
        self.alive_at_end: list[int] = []
        self._families = {family.job: family for family in families}

    async def ended(self, job: str, attempt: int, ending: Ending) -> None:
        self.alive_at_end += await anyio.to_thread.run_sync(self._families[job].alive)
        await super().ended(job, attempt, ending)


def kill_all(daemon: subprocess.Popen[str], found: list[Family], position: int) -> None:
    """The daemon dies after ``position`` of the others, for each family in an order of its own."""
    for family, order in zip(found, ORDERS, strict=True):
        family.kill(order[:position])
    daemon.kill()
    for family, order in zip(found, ORDERS, strict=True):
        family.kill(order[position:])


@pytest.mark.parametrize("position", range(4), ids=["first", "second", "third", "last"])
async def test_whatever_is_killed_in_whatever_order_nothing_is_left_and_lost_is_said_after_the_proof(
    tmp_path: Path, position: int
) -> None:
    jobs = tmp_path / "jobs"
    with families(jobs) as (daemon, found):
        await anyio.to_thread.run_sync(kill_all, daemon, found, position)
        killed = time.monotonic()
        log = ProvenLog(found)
        for family in found:
            bundle = Bundle(jobs / family.job / "attempts" / "1")
            log.start(await anyio.to_thread.run_sync(bundle.read_spec))
        async with anyio.create_task_group() as tasks:
            await tasks.start(Supervision(jobs, log, LocalExecutor()).run)
            endings = [await log.until_ended(family.job, 1) for family in found]
            took = time.monotonic() - killed
            tasks.cancel_scope.cancel()
        assert log.alive_at_end == []
        assert [pid for family in found for pid in await anyio.to_thread.run_sync(family.alive)] == []
        assert took < NOTHING_LEFT_WITHIN
        for order, ending in zip(ORDERS, endings, strict=True):
            if order[0] == "runner":
                assert ending.lost == "its runner died before it could say how the work ended"
            # A runner that outlived its trainer may have told how that ended; else nobody can.
            assert ending.lost is not None or ending.signal == signal.SIGKILL
    print(f"{len(ORDERS)} orders, the daemon {position + 1}.: nothing left after {took:.2f} s")  # noqa: T201
