"""Who keeps a free GPU from being used: over a real log, NVML and processes faked at their boundary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

import anyio
import pytest
from tests.unit.domain.worlds import end, submission

from finetuned.board import Board
from finetuned.device_gate import NOT_LOOKED, POLL_S, VALID_S, DeviceGate, hold_of
from finetuned.domain import attempt_decisions, decisions, facts
from finetuned.domain.attempt_decisions import Prospect
from finetuned.domain.situation import Hold, Situation
from finetuned.domain.streams import job_event
from finetuned.domain.waits import Waits
from finetuned.scheduler import MIN_RUN_S, Scheduler
from finetuned.store import Log, open_log
from finetuned.telemetry import marks
from finetuned.telemetry.gpus import Gpu, GpuProcess, GpuReader
from finetuned.telemetry.marks import Mark
from finetuned.telemetry.processes import Process
from finetuned.telemetry.testing import FakeGpu, FakeMemory, FakeNvml, FakeProcess

GB = 10**9
ID = "gpu:GPU-a"


def process(pid: int, name: str = "python", *, parent: int = 1, session: int = 1) -> Process:
    return Process(pid=pid, name=name, parent=parent, session=session, started=1, cpu_s=0, threads=1, rss=1)


def gpu(*holders: GpuProcess, used: int = 0, problem: str | None = None) -> Gpu:
    return Gpu(
        id=ID,
        name="NVIDIA H200",
        ordinal=0,
        memory_total=80 * GB,
        memory_used=used,
        processes=holders,
        minor=0,
        problem=problem,
    )


# ---- who holds it ----------------------------------------------------------------------------------------


def test_a_gpu_with_nobody_on_it_is_free() -> None:
    assert hold_of(gpu(used=GB), {}, {}, {}) is None


def test_a_stranger_leaves_what_is_free_and_is_named_by_pid_and_program() -> None:
    desktop = gpu(GpuProcess(812, 2 * GB), used=3 * GB)
    assert hold_of(desktop, {}, {812: process(812, "Xorg")}, {}) == Hold(
        "pid 812 (Xorg) with 2.00 GB of it; 77.00 GB are free", 77 * GB
    )


def test_what_an_attempt_left_keeps_the_gpu_whole() -> None:
    left = gpu(GpuProcess(60, 2 * GB), GpuProcess(812, None), used=3 * GB)
    marked = {60: Mark("job-x", 2, frozenset())}
    table = {60: process(60), 812: process(812)}
    assert hold_of(left, {}, table, marked) == Hold(
        "pid 60 of attempt 2 of job-x, which has ended with 2.00 GB of it", passing=True
    )


def test_a_loader_process_that_only_inherited_the_device_node_keeps_it_too() -> None:
    marked = {61: Mark("job-x", 2, frozenset({0})), 62: Mark("job-x", 2, frozenset({1}))}
    assert hold_of(gpu(), {}, {61: process(61)}, marked) == Hold(
        "pid 61 of attempt 2 of job-x, which has ended", passing=True
    )


def test_a_live_attempt_of_another_gpu_holds_no_more_than_it_uses() -> None:
    live: Mapping[int, tuple[str, int]] = {10: ("job-y", 1)}
    table = {10: process(10), 11: process(11, parent=10)}
    marked = {11: Mark("job-y", 1, frozenset({0, 1}))}  # CUDA opens the nodes of all GPUs
    assert hold_of(gpu(), live, table, marked) is None
    found = hold_of(gpu(GpuProcess(11, GB), used=GB), live, table, marked)
    assert found == Hold("pid 11 of attempt 1 of job-y with 1.00 GB of it; 79.00 GB are free", 79 * GB)


def test_a_holder_that_has_ended_since_and_one_that_cannot_be_seen_are_told_apart_by_the_memory() -> None:
    assert hold_of(gpu(GpuProcess(77, GB), used=GB), {}, {}, {}) is None
    found = hold_of(gpu(GpuProcess(77, None), used=20 * GB), {}, {}, {})
    assert found == Hold(f"processes that cannot be seen, with 20.00 GB of {ID}; 60.00 GB are free", 60 * GB)


def test_many_strangers_are_counted() -> None:
    crowd = gpu(*(GpuProcess(pid, pid * GB) for pid in (1, 2, 3, 4, 5)), used=20 * GB)
    found = hold_of(crowd, {}, {pid: process(pid) for pid in (1, 2, 3, 4, 5)}, {})
    assert found is not None
    assert found.reason.startswith("pid 5 (python) with 5.00 GB of it, pid 4 (python)")
    assert " and 2 more; " in found.reason


def test_nothing_starts_on_a_gpu_that_does_not_answer() -> None:
    assert hold_of(gpu(problem="GPU is lost"), {}, {}, {}) == Hold(f"a fault of {ID}: GPU is lost")


# ---- when it is looked at --------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A gate over one GPU, and a scheduler behind it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.board = Board(log)
        self.clock = Clock()
        self.card = FakeGpu("GPU-a", memory=FakeMemory(total=80 * GB))
        self.reader = GpuReader(lambda: FakeNvml(self.card))
        self.table: dict[int, Process] = {}
        self.marked: dict[int, Mark] = {}
        self.looks = self.changes = 0
        self.gate = DeviceGate(
            log,
            self.board,
            self.look,
            self.attempts,
            changed=self.changed,
            table=lambda: dict(self.table),
            marked=lambda: dict(self.marked),
            clock=self.clock,
        )
        self.scheduler = Scheduler(log, self.board, holds=self.gate.holds, clock=self.clock)

    async def look(self) -> tuple[Gpu, ...]:
        self.looks += 1
        return self.reader.read()

    async def attempts(self) -> Mapping[int, tuple[str, int]]:
        return {}

    def changed(self) -> None:
        self.changes += 1

    async def submit(self, job_id: str, device_bytes: int = 0) -> None:
        wanted = submission(estimate={"device_bytes": device_bytes})
        await self.log.execute(lambda world: decisions.submit(world, job_id, wanted, actor="a"))
        await self.board.world()

    async def crash(self, job_id: str, attempt: int) -> None:
        how = end(exit_code=None, signal=9)
        await self.log.execute(lambda world: attempt_decisions.ended(world, job_id, attempt, how, Prospect()))
        await self.board.world()

    async def state(self, job_id: str) -> str:
        return (await self.board.world()).jobs[job_id].state.value

    async def reason(self, job_id: str) -> str:
        world = await self.board.world()
        found = Waits(world.live_jobs(), world.slots.values(), self.scheduler.situation())
        return found[job_id].reason


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    slots = [{"id": ID, "kind": "gpu", "name": "NVIDIA H200", "memory_bytes": 80 * GB}]
    async with open_log(tmp_path / "log") as log:
        await log.execute(lambda world: decisions.devices_detected(world, slots))
        yield Rig(log)


async def test_nobody_looks_while_no_job_waits(rig: Rig) -> None:
    assert await rig.gate.step() == float("inf")
    assert (rig.looks, rig.gate.holds()) == (0, {})


async def test_nothing_starts_on_a_gpu_before_it_was_looked_at(rig: Rig) -> None:
    await rig.submit("job-1")
    assert rig.gate.holds() == {ID: NOT_LOOKED}
    await rig.scheduler.step()
    assert await rig.state("job-1") == "queued"
    assert await rig.gate.step() == POLL_S
    assert (rig.looks, rig.changes) == (1, 1)
    await rig.scheduler.step()
    assert await rig.state("job-1") == "starting"


async def test_a_job_that_was_just_submitted_preempts_nobody_while_a_free_gpu_is_being_looked_at(
    rig: Rig,
) -> None:
    slots = [{"id": each, "kind": "gpu", "name": "H200", "memory_bytes": 80 * GB} for each in (ID, "gpu:9")]
    await rig.log.execute(lambda world: decisions.devices_detected(world, slots))
    await rig.log.execute(
        lambda world: decisions.submit(world, "low", submission(preemptible=True), actor="a")
    )
    calm = Situation(holds={ID: NOT_LOOKED})
    await rig.log.execute(lambda world: decisions.schedule(world, elapsed=frozenset(), situation=calm))
    await rig.log.append([job_event("low", facts.AttemptStarted(attempt=1), actor="attempt:1")])
    await rig.scheduler.step()
    rig.clock.now += MIN_RUN_S
    urgent = submission(priority=5)
    await rig.log.execute(lambda world: decisions.submit(world, "urgent", urgent, actor="a"))
    await rig.scheduler.step()
    assert (await rig.state("low"), await rig.state("urgent")) == ("running", "queued")
    await rig.gate.step()
    await rig.scheduler.step()
    assert (await rig.state("low"), await rig.state("urgent")) == ("running", "starting")


async def test_the_next_job_waits_until_what_the_last_one_left_is_gone_and_says_for_whom(rig: Rig) -> None:
    await rig.submit("job-1")
    await rig.gate.step()
    await rig.scheduler.step()
    await rig.submit("job-2")
    rig.table = {60: process(60)}
    rig.marked = {60: Mark("job-1", 1, frozenset())}
    rig.card.compute = [FakeProcess(60, 2 * GB)]
    await rig.crash("job-1", 1)
    assert rig.gate.holds() == {ID: NOT_LOOKED}  # what was seen before its last holder left says nothing
    await rig.gate.step()
    await rig.scheduler.step()
    assert await rig.state("job-2") == "queued"
    assert await rig.reason("job-2") == (
        "needs 1 device; 0 of 1 free, held by pid 60 of attempt 1 of job-1, which has ended with 2.00 GB of it"
    )
    rig.table, rig.marked, rig.card.compute = {}, {}, []
    rig.clock.now += POLL_S
    before = rig.changes
    await rig.gate.step()
    assert rig.changes == before + 1
    await rig.scheduler.step()
    assert await rig.state("job-2") == "starting"


async def test_a_job_that_fits_beside_a_stranger_starts_and_one_that_does_not_names_it(rig: Rig) -> None:
    rig.table = {812: process(812, "Xorg")}
    rig.card.graphics = [FakeProcess(812, 2 * GB)]
    rig.card.memory.used = 3 * GB
    await rig.submit("job-1", device_bytes=104 * GB)  # 78 of them, as far as estimates may be off
    await rig.gate.step()
    await rig.scheduler.step()
    assert "held by pid 812 (Xorg) with 2.00 GB of it; 77.00 GB are free" in await rig.reason("job-1")
    rig.card.memory.used = 2 * GB
    rig.clock.now += POLL_S
    await rig.gate.step()
    await rig.scheduler.step()
    assert await rig.state("job-1") == "starting"


async def test_a_job_that_fits_beside_another_daemons_attempt_starts(rig: Rig, tmp_path: Path) -> None:
    process_files = tmp_path / "proc" / "60"
    (process_files / "fd").mkdir(parents=True)
    (process_files / "environ").write_bytes(b"FINETUNED_ATTEMPT=job-of-another/1/ab\0")
    (process_files / "fd" / "4").symlink_to("/dev/nvidia0")
    (tmp_path / "jobs").mkdir()
    rig.gate._marked = partial(marks.read, tmp_path / "jobs", tmp_path / "proc")
    rig.table = {60: process(60)}
    rig.card.compute = [FakeProcess(60, 10 * GB)]
    rig.card.memory.used = 10 * GB
    await rig.submit("job-1", device_bytes=60 * GB)
    await rig.gate.step()
    assert rig.gate.holds() == {
        ID: Hold("pid 60 (python) with 10.00 GB of it; 70.00 GB are free", 70 * GB),
    }
    await rig.scheduler.step()
    assert await rig.state("job-1") == "starting"


async def test_a_look_that_is_old_says_nothing_and_one_that_is_fresh_is_not_repeated(rig: Rig) -> None:
    rig.card.mute = {"MemoryInfo"}
    await rig.submit("job-1")
    await rig.gate.step()
    rig.clock.now += POLL_S - 0.1
    await rig.gate.step()
    assert rig.looks == 1
    rig.clock.now += VALID_S
    assert rig.gate.holds() == {ID: NOT_LOOKED}


async def test_a_gpu_that_is_released_while_it_is_looked_at_is_looked_at_again(rig: Rig) -> None:
    await rig.submit("job-1")
    await rig.gate.step()
    await rig.scheduler.step()
    await rig.submit("job-2")
    await rig.crash("job-1", 1)

    async def claimed_and_released() -> tuple[Gpu, ...]:
        def schedule(world: object) -> object:
            return decisions.schedule(world, elapsed=frozenset())  # type: ignore[arg-type]

        await rig.log.execute(schedule)  # type: ignore[arg-type]
        await rig.crash("job-2", 1)
        return rig.reader.read()

    rig.gate._look = claimed_and_released
    await rig.gate.step()
    assert rig.gate.holds() == {ID: NOT_LOOKED}


async def test_a_driver_that_cannot_be_asked_at_all_holds_up_nothing(rig: Rig) -> None:
    rig.reader = GpuReader(lambda: FakeNvml(broken=True))
    await rig.submit("job-1")
    await rig.gate.step()
    assert rig.gate.holds() == {}


async def test_the_gate_looks_by_itself_when_a_job_comes(rig: Rig) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.gate.run)
        tasks.start_soon(rig.scheduler.run)
        rig.gate._changed = rig.scheduler.look
        await rig.submit("job-1")
        with anyio.fail_after(10):
            while await rig.state("job-1") != "starting":
                await rig.log.wait(rig.log.head)
        tasks.cancel_scope.cancel()
