"""What is told of live attempts when something fills up; the machine as the test wants it, the log in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.unit.domain.worlds import Scene

from finetuned.attempts.ports import Alert, Intervention, NoRoomError
from finetuned.domain import attempt_decisions, facts
from finetuned.domain.world import World
from finetuned.resource_watch import ResourceWatch, fills_of, kept, size
from finetuned.telemetry.gpus import Gpu, GpuReader
from finetuned.telemetry.holders import Usage
from finetuned.telemetry.host import HostReader, Memory
from finetuned.telemetry.telemetry import Snapshot, Telemetry
from finetuned.telemetry.thresholds import Crossings, Fill
from finetuned_events import LogBrokenError, LogFullError
from finetuned_sdk.bundle import Bundle, write_json

GB = 10**9


def fill(used: float) -> Fill:
    return Fill("memory", used, 100, "so full")


def test_an_alert_is_raised_once_for_each_crossing() -> None:
    crossings = Crossings()
    assert [len(crossings.crossed([fill(used)])) for used in (95, 96, 99, 91, 96, 89, 96)] == [
        0, 1, 0, 0, 0, 0, 1,
    ]  # fmt: skip
    assert crossings.crossed([]) == []
    assert len(crossings.crossed([fill(96)])) == 1  # it was gone in between
    assert crossings.crossed([Fill("nothing", 0, 0, "")]) == []


class Board:
    def __init__(self, world: World) -> None:
        self._world = world

    async def world(self) -> World:
        return self._world


class Log:
    """What was recorded; folded, as the real one does."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.said: list[Alert | Intervention] = []
        self.failure: Exception | None = None

    async def intervened(self, job: str, attempt: int, what: Alert | Intervention) -> None:
        if self.failure is not None:
            raise self.failure
        self.said.append(what)
        fact: facts.Fact
        if isinstance(what, Alert):
            fact = facts.AttemptAlert(
                attempt=attempt, subject=what.subject, message=what.message, figures=dict(what.figures)
            )
        else:
            fact = facts.AttemptIntervened(attempt=attempt, **dataclasses.asdict(what))
        self.scene.report(job, fact)


class Rig:
    def __init__(self, path: Path, limits: Mapping[str, float]) -> None:
        self.path = path
        self.scene = Scene()
        self.scene.submit(limits=dict(limits))
        self.scene.schedule()
        launched = facts.AttemptLaunched(attempt=1, pid=2**22 + 1, boot_id="", start_time=1, process_group=1)
        self.scene.fold(attempt_decisions.launched(self.scene.world, "job-1", launched))
        self.scene.start()
        self.log = Log(self.scene)
        self.noticed = 0
        self.own = 0.0  # what its processes hold, shared pages counted once
        self.telemetry = Telemetry(HostReader(path), GpuReader(lambda: None))
        self.bundle = Bundle(path / "bundle")
        self.bundle.path.mkdir()
        self.watch = self.watcher()

    def watcher(self) -> ResourceWatch:
        board: Any = Board(self.scene.world)
        log: Any = self.log
        return ResourceWatch(
            board,
            self.telemetry,
            log,
            bundle=lambda *_: self.bundle,
            notice=self.notice,
            proportional=lambda _pids: int(self.own * GB),
        )

    def notice(self) -> None:
        self.noticed += 1

    async def snapshot(self, *, available: float = 12, rss: float = 0) -> Snapshot:
        found = await self.telemetry.look()
        memory = Memory(total=16 * GB, available=int(available * GB), swap_total=0, swap_used=0)
        usage = Usage(pid=1, processes=1, rss=int(rss * GB), threads=1, cpu=None, gpu_memory={})
        return found._replace(host=found.host._replace(memory=memory), usage={("job-1", 1): usage})

    def subjects(self) -> list[str]:
        return [each.subject if isinstance(each, Alert) else each.action for each in self.log.said]


@pytest.fixture
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Rig:
    return Rig(tmp_path, getattr(request, "param", {}))


async def test_a_machine_without_memory_is_told_of_once(rig: Rig) -> None:
    for available in (0.5, 0.4, 0.5):
        await rig.watch.look(await rig.snapshot(available=available))
    (alert,) = rig.log.said
    assert alert == Alert(
        subject="memory",
        message="the machine has 0.50 GB of its 16.00 GB of memory left",
        figures={"used": 15.5 * GB, "of": 16 * GB},
    )


@pytest.mark.parametrize("rig", [{"memory": 4 * GB}], indirect=True)
async def test_an_attempt_close_to_its_own_limit_is_told_of(rig: Rig) -> None:
    await rig.watch.look(await rig.snapshot(rss=5))  # pages that loader processes share
    assert rig.subjects() == ["limits"]
    rig.own = 3.9
    await rig.watch.look(await rig.snapshot(rss=5))
    assert rig.subjects() == ["limits", "memory"]
    assert "its processes hold 3.90 GB of memory; its limit is 4.00 GB" in repr(rig.log.said[1])


@pytest.mark.parametrize("rig", [{"memory": 4 * GB}], indirect=True)
async def test_how_limits_are_kept_is_said_once_also_by_the_next_daemon(rig: Rig) -> None:
    write_json(rig.bundle.limits_path, {"memory": "control group"})
    await rig.watch.look(await rig.snapshot())
    await rig.watch.look(await rig.snapshot())
    await rig.watcher().look(await rig.snapshot())
    (alert,) = rig.log.said
    assert "memory up to 4.00 GB: kept by the kernel, in a control group" in repr(alert)


@pytest.mark.parametrize("rig", [{"disk": 1 << 20}], indirect=True)
async def test_files_near_the_limit_are_told_of_and_those_above_it_stop_the_attempt_once(rig: Rig) -> None:
    written = rig.bundle.path / "checkpoint"
    written.write_bytes(b"\1" * (1020 << 10))
    await rig.watch.look(await rig.snapshot())
    assert (rig.subjects(), rig.noticed) == (["limits", "disk"], 0)
    written.write_bytes(b"\1" * (1200 << 10))
    await rig.watch.look(await rig.snapshot())
    await rig.watch.look(await rig.snapshot())
    assert (rig.subjects()[2:], rig.noticed) == (["request_stop"], 1)
    stopping = rig.scene.world.jobs["job-1"].attempts[-1].stopping
    assert stopping is not None
    assert (stopping["failure"], "more than its limit of 1.0 MB" in stopping["reason"]) == ("limit", True)


@pytest.mark.parametrize("rig", [{"disk": 1 << 20, "memory": 4 * GB}], indirect=True)
@pytest.mark.parametrize("failure", [NoRoomError("the disk is full"), LogFullError("the disk is full")])
async def test_what_finds_no_room_in_the_log_ends_nothing_and_is_told_when_there_is_some(
    rig: Rig, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    (rig.bundle.path / "checkpoint").write_bytes(b"\1" * (1200 << 10))
    rig.log.failure = failure
    for _ in range(3):
        await rig.watch.look(await rig.snapshot(available=0.5))
    assert (rig.subjects(), rig.noticed) == ([], 0)
    assert caplog.text.count("cannot be recorded: ") == 1
    rig.log.failure = None
    for _ in range(3):
        await rig.watch.look(await rig.snapshot(available=0.5))
    assert (rig.subjects(), rig.noticed) == (["limits", "request_stop", "memory", "disk"], 1)


async def test_a_broken_log_ends_the_watch(rig: Rig) -> None:
    rig.log.failure = LogBrokenError()
    with pytest.raises(LogBrokenError):
        await rig.watch.look(await rig.snapshot(available=0.5))


async def test_the_watch_follows_each_look_at_the_machine(rig: Rig) -> None:
    async def looks() -> None:
        while not rig.log.said:
            rig.telemetry._newest = await rig.snapshot(available=0.1)
            rig.telemetry._looked.set()
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.watch.run)
        with anyio.fail_after(20):
            await looks()
        tasks.cancel_scope.cancel()
    assert rig.subjects() == ["memory"]


async def test_gpus_of_the_attempt_fill_up_as_a_whole_and_against_its_limit(rig: Rig) -> None:
    job = dataclasses.replace(rig.scene.world.jobs["job-1"], limits={"gpu_memory": 40 * GB})
    attempt = dataclasses.replace(job.attempts[-1], devices=["gpu:a"])
    usage = Usage(pid=1, processes=1, rss=0, threads=1, cpu=None, gpu_memory={"gpu:a": 39 * GB})
    found = (await rig.snapshot())._replace(
        gpus=tuple(
            Gpu(id=each, name="", ordinal=0, memory_total=80 * GB, memory_used=79 * GB)
            for each in ("gpu:a", "gpu:b")
        ),
        usage={("job-1", 1): usage},
    )
    told = [(subject, each.what) for subject, each in fills_of(job, attempt, found)][1:]
    assert told == [
        ("device_memory", "79.00 GB of the 80.00 GB of gpu:a are in use"),
        ("device_memory", "its processes hold 39.00 GB of memory of gpu:a; its limit is 40.00 GB"),
    ]


def test_what_a_runner_does_not_say_is_not_claimed() -> None:
    said = kept({"memory": GB, "cpu": 2, "gpu_memory": GB}, {"cpu": "by magic"}, has_gpu=True)
    assert said.count("its runner does not say how it keeps that") == 2
    assert "kept by torch's allocator" in said


def test_temporary_files_count_and_those_that_go_meanwhile_do_not(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path / "bundle")
    (bundle.path / "work").mkdir(parents=True)
    elsewhere = tmp_path / "ft-0"
    elsewhere.mkdir()
    bundle.temporary.symlink_to(elsewhere)
    before = size(bundle)
    (elsewhere / "cache").write_bytes(b"\1" * 40_960)
    assert size(bundle) >= before + 40_960
