"""Real runners and workers over an in-memory log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from tests.acceptance.daemon import gated
from tests.acceptance.daemon.process import ROOT

from finetuned.attempts import identity, temporary
from finetuned.attempts.launcher import Executor, LocalExecutor
from finetuned.attempts.liveness import beat_interval
from finetuned.attempts.ports import Ending, Timeouts
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.supervisor import Timing
from finetuned.attempts.testing import Entry, MemoryAttemptLog, fake_spec
from finetuned.attempts.warm import WarmStarts
from finetuned_sdk.bundle import Bundle, RunnerIdentity, Spec

QUICK = Timing(start=60.0, poll=0.01, poll_idle=0.05)


def alive(tag: str, runners: list[RunnerIdentity]) -> list[int]:
    """The processes of an attempt that live, its runner among them."""
    return identity.leftovers(tag, None) + [runner.pid for runner in runners if identity.is_alive(runner)]


class CheckingLog(MemoryAttemptLog):
    """Looks, at the moment an attempt is said to have ended, whether anything of it is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive_at_end: list[int] = []

    async def ended(self, job: str, attempt: int, ending: Ending) -> None:
        entry = self.entries[job, attempt]
        self.alive_at_end += await to_thread.run_sync(alive, entry.spec.tag, entry.runners)
        await super().ended(job, attempt, ending)


class House:
    """A state directory, a log that survives, and daemons that come and go."""

    def __init__(self, path: Path, *, is_warm: bool = False) -> None:
        self.jobs = path / "jobs"
        self.log = CheckingLog()
        self.preload = ("finetuned_sdk.fake",) if is_warm else ()
        self._local = LocalExecutor(warm=WarmStarts() if is_warm else None)
        self.executor: Executor = self._local
        self.gate = path / "gate"

    def start(self, *, timeouts: Timeouts | None = None, spent_s: float = 0.0, **changes: Any) -> Entry:
        if timeouts is not None:
            changes = {"heartbeat_s": beat_interval(timeouts), **changes}
        return self.log.start(fake_spec(**{"preload": self.preload, **changes}), timeouts, spent_s=spent_s)

    def held(self) -> dict[str, Any]:
        """Of a specification: work that stands still after its first step until the gate is there."""
        return {
            "entry": f"{gated.__name__}:run",
            "params_model": f"{gated.__name__}:GatedParams",
            "params": {"gate": str(self.gate), "held_at": 1},
            "environment": {"PYTHONPATH": str(ROOT)},
        }

    @contextlib.asynccontextmanager
    async def daemon(self, timing: Timing = QUICK) -> AsyncIterator[Supervision]:
        """A daemon's life; at its end the attempts are left as a SIGKILL would leave them."""
        supervision = Supervision(self.jobs, self.log, self.executor, timing=timing)
        async with anyio.create_task_group() as tasks:
            await tasks.start(supervision.run)
            yield supervision
            tasks.cancel_scope.cancel()

    async def run(self, **changes: Any) -> Entry:
        """One attempt from its start to its end."""
        entry = self.start(**changes)
        async with self.daemon():
            await self.log.until_ended(entry.spec.job, entry.spec.attempt)
        return entry

    def bundle(self, spec: Spec) -> Bundle:
        return Bundle(self.jobs / spec.job / "attempts" / str(spec.attempt))

    def processes(self, spec: Spec) -> list[int]:
        """What is alive of the work of an attempt."""
        return identity.leftovers(spec.tag, None)

    async def until(self, condition: Callable[[], object]) -> None:
        """Look again and again until a condition holds that other processes bring about."""
        with anyio.fail_after(60):
            while not await to_thread.run_sync(condition):  # noqa: ASYNC110 - no event comes from there
                await anyio.sleep(0.01)

    async def until_family(self, spec: Spec, size: int) -> None:
        """Wait until so many processes of an attempt are alive."""
        await self.until(lambda: len(self.processes(spec)) >= size)

    def clear(self) -> None:
        self._local.close()
        for path in self.jobs.glob("*/attempts/*"):
            runner = Bundle(path).read_runner()
            # With its random part: tests that run beside this one have attempts of the same job and number.
            tag = Bundle(path).read_spec().tag if Bundle(path).spec_path.exists() else "none"
            deadline = time.monotonic() + 60
            while not self._is_clear(tag, runner):
                assert time.monotonic() < deadline, f"{tag} cannot be killed"
                time.sleep(0.01)
            temporary.remove(Bundle(path))

    def _is_clear(self, tag: str, runner: RunnerIdentity | None) -> bool:
        if runner is not None and identity.is_alive(runner):
            identity.kill(runner.pid)
        left = identity.kill_leftovers(tag, runner)
        self.executor.reap()
        return not left and (runner is None or not identity.is_alive(runner))


@pytest.fixture(params=["cold", "warm"])
def house(tmp_path: Path, no_blocking: None, request: pytest.FixtureRequest) -> Iterator[House]:
    """Workers are executed as programs, or forked with their imports: nothing else may differ."""
    house = House(tmp_path, is_warm=request.param == "warm")
    yield house
    house.clear()
