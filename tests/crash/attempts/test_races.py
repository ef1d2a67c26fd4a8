"""Things that must hold however the moments fall."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from finetuned.attempts import identity
from finetuned.attempts.launcher import LocalExecutor
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.testing import MemoryAttemptLog, fake_spec
from finetuned_sdk import checkpoints
from finetuned_sdk.bundle import Bundle
from finetuned_sdk.spool import Fact

RACES = int(os.environ.get("FINETUNED_RACES", "200"))
KILLS = int(os.environ.get("FINETUNED_KILLS", "20"))

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]


class Races:
    """Runners against a daemon that gives up, a few at once, each at about the moment of the claim."""

    def __init__(self, path: Path, count: int = RACES, *, seed: int = 7) -> None:
        self.wins = {"runner": 0, "daemon": 0}
        self._path = path
        self._executor = LocalExecutor()
        self._chance = random.Random(seed)
        self._patience = 0.0  # seconds; what a claim took, then it follows the winner: both have a chance
        self._left = count
        self._alone = itertools.count()

    async def run(self) -> None:
        await self._claim_alone()
        while self._left > 0:
            self._left -= 1
            await self._race(self._left)

    async def _claim_alone(self) -> None:
        bundle = await self._launch(f"alone-{next(self._alone)}")
        began = time.monotonic()
        with anyio.fail_after(60):
            while bundle.read_runner() is None:  # noqa: ASYNC110 - a process makes it
                await anyio.sleep(0.005)
        self._patience = time.monotonic() - began

    async def _launch(self, job: str) -> Bundle:
        bundle = Bundle(self._path / job / "attempts" / "1")
        spec = fake_spec(job=job)
        bundle.create(replace(spec, interpreter="/bin/true"))  # of the worker: only who owns it is asked
        await self._executor.launch(bundle, spec)
        return bundle

    async def _race(self, number: int) -> None:
        before = self._executor.running
        bundle = await self._launch(f"job-{number}")
        await anyio.sleep(self._patience * self._chance.uniform(0.7, 1.3))
        revoked = bundle.revoke()
        with anyio.fail_after(60):
            while not revoked and not bundle.exit_path.exists():  # noqa: ASYNC110 - a process makes it
                await anyio.sleep(0.005)
            while revoked and self._executor.running - before:  # the late runner has to go by itself
                self._executor.reap()
                await anyio.sleep(0.005)
        assert revoked == bundle.is_revoked
        assert revoked == (bundle.read_runner() is None)
        assert revoked == (not bundle.exit_path.exists())
        self.wins["daemon" if revoked else "runner"] += 1
        self._patience *= 1.2 if revoked else 0.85


async def test_of_a_runner_and_a_daemon_that_gives_up_exactly_one_wins(tmp_path: Path) -> None:
    races = Races(tmp_path)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(races.run)
    print(f"{RACES} races, one winner each: {races.wins}")  # noqa: T201 - the figure of this test
    assert sum(races.wins.values()) == RACES
    assert min(races.wins.values()) > 0


async def test_a_worker_killed_at_any_moment_resumes_from_a_complete_checkpoint(tmp_path: Path) -> None:
    """Kill, resume, kill …: every resumption is from a checkpoint whose every byte holds."""
    chance = random.Random(11)
    jobs, log, executor = tmp_path / "jobs", MemoryAttemptLog(), LocalExecutor()
    params = {"steps": 100_000, "checkpoint_every": 1, "checkpoint_bytes": 300_000}
    resume_from, reached = None, 0
    supervision = Supervision(jobs, log, executor)
    async with anyio.create_task_group() as tasks:
        await tasks.start(supervision.run)
        for attempt in range(1, KILLS + 1):
            spec = fake_spec(attempt=attempt, params=params, resume_from=resume_from)
            entry = log.start(spec)
            supervision.notice()
            hello = await log.until_fact(spec.job, attempt, "hello")
            await log.until_fact(spec.job, attempt, "checkpoint")
            await anyio.sleep(chance.uniform(0, 0.05))
            os.kill(hello.data["pid"], signal.SIGKILL)
            ending = await log.until_ended(spec.job, attempt)
            assert ending.signal == signal.SIGKILL
            home = supervision.bundle(spec.job, attempt).checkpoints
            newest = checkpoints.newest_complete(home.iterdir())
            assert newest is not None
            step = json.loads((newest / "state.json").read_text(encoding="utf-8"))["step"]
            said = max(fact.data["step"] for fact in entry.facts if fact.type == "checkpoint")
            assert step >= said > reached  # what was reported is there, and every attempt gets further
            resume_from, reached = str(newest), step
        tasks.cancel_scope.cancel()
    print(f"{KILLS} of {KILLS} resumed from a complete checkpoint; step {reached}")  # noqa: T201


DAEMON = """
import sys
from pathlib import Path
import anyio
from finetuned.attempts.launcher import LocalExecutor
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.testing import MemoryAttemptLog, fake_spec

async def main():
    log = MemoryAttemptLog()
    for number in range(3):
        log.start(fake_spec(job=f"job-{number}", params={"steps": 40, "step_seconds": 0.03}))
    supervision = Supervision(Path(sys.argv[1]), log, LocalExecutor())
    async with anyio.create_task_group() as tasks:
        await tasks.start(supervision.run)
        for number in range(3):
            await log.until_fact(f"job-{number}", 1, "progress")
        print("running", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def run_and_kill_daemon(jobs: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(jobs)], stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "running\n"
        daemon.kill()


async def test_a_daemon_killed_with_sigkill_costs_no_step(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    await anyio.to_thread.run_sync(run_and_kill_daemon, jobs)
    log = MemoryAttemptLog()
    entries = [log.start(Bundle(jobs / f"job-{n}" / "attempts" / "1").read_spec()) for n in range(3)]
    supervision = Supervision(jobs, log, LocalExecutor())
    async with anyio.create_task_group() as tasks:
        began = time.monotonic()
        await tasks.start(supervision.run)
        print(f"3 of 3 found again in {time.monotonic() - began:.3f} s")  # noqa: T201 - the figure of this test
        for entry in entries:
            assert (await log.until_ended(entry.spec.job, 1)).exit_code == 0
        tasks.cancel_scope.cancel()
    for entry in entries:
        assert [line.line for line in entry.lines] == list(range(1, len(entry.lines) + 1))
        assert all(isinstance(line, Fact) for line in entry.lines)
        assert [fact.type for fact in entry.facts].count("hello") == 1
        assert not identity.leftovers(entry.spec.tag, None)
