from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.unit.domain.worlds import submission

from finetuned import attempt_log
from finetuned.attempt_log import DaemonAttemptLog, read_secrets
from finetuned.attempt_orders import AttemptSettings
from finetuned.attempts.launcher import LocalExecutor
from finetuned.attempts.ports import Ending, Intervention, NoRoomError, SpecUnavailableError, StopOrder
from finetuned.attempts.supervision import Supervision
from finetuned.board import Board
from finetuned.domain import decisions, facts
from finetuned.secrets.store import SecretStore
from finetuned.store import Log, open_log
from finetuned_events import LogFullError, NewEvent
from finetuned_sdk import JobKind, Registry, checkpoints, fake
from finetuned_sdk.bundle import RunnerIdentity
from finetuned_sdk.spool import BadLine, Fact

SLOTS = [{"id": "cpu:0", "kind": "cpu", "name": "slot", "memory_bytes": 1}]
JOB = "job-1"


class Desk:
    """The port over a real log, with one job whose first run is starting."""

    def __init__(self, log: Log, jobs_dir: Path) -> None:
        self.log = log
        self.jobs_dir = jobs_dir
        self.registry = Registry()
        self.registry.job_kind(fake.FAKE)
        self.board = Board(log)
        settings = AttemptSettings(allow_remote_code=False, grace_s=10)
        self.port = DaemonAttemptLog(log, self.board, self.registry, settings, jobs_dir, jitter=lambda: 0)

    async def start(self, **changes: Any) -> None:
        await self.log.execute(lambda world: decisions.devices_detected(world, SLOTS))
        await self.log.execute(lambda world: decisions.submit(world, JOB, submission(**changes), actor="a"))
        await self.log.execute(lambda world: decisions.schedule(world, elapsed=frozenset()))

    async def say(self, *said: tuple[str, dict[str, Any]], first: int = 1) -> None:
        lines = [Fact(line, kind, 0, data) for line, (kind, data) in enumerate(said, first)]
        await self.port.record(JOB, 1, lines)

    async def types(self) -> list[str]:
        return [event.type for event in await self.log.read(stream=f"job/{JOB}")]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_log(tmp_path / "log") as log:
        yield Desk(log, tmp_path / "jobs")


async def test_each_kind_of_line_becomes_its_event(desk: Desk) -> None:
    await desk.start()
    await desk.say(
        ("hello", {"pid": 7}),
        ("phase", {"phase": "training"}),
        ("progress", {"current_step": 1, "loss": 0.5}),
        ("advice", {"setting": "max_length", "message": "Raise it.", "figures": {"cut": 3}}),
        ("audit", {"report": {"rows": 3}}),
        ("evaluation", {"name": "validation", "metrics": {"exact_match": 1}, "step": None}),
        ("checkpoint", {"step": 1, "path": "/c", "bytes": 3, "metrics": {"loss": None}}),
        ("checkpoint_discarded", {"path": "/c"}),
        ("artifact", {"name": "adapter", "kind": "adapter", "path": "/a", "bytes": 1, "files": []}),
        ("model", {"name": "m", "path": "/a", "kind": "adapter", "base": None, "lineage": {}}),
        ("error", {"code": "c", "message": "m", "retryable": True, "problems": [1]}),
        ("result", {"values": {"train_loss": 0.5}}),
    )
    assert (await desk.types())[2:] == [
        "attempt.started", "job.phase", "job.progress", "job.advice", "dataset.audited", "evaluation.recorded",
        "checkpoint.saved", "checkpoint.discarded", "artifact.published", "attempt.model", "attempt.error",
        "attempt.result",
    ]  # fmt: skip
    (attempt,) = (await desk.board.world()).jobs[JOB].attempts
    assert attempt.line == 12


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("phase", {"phase": 5}),
        ("phase", {}),
        ("model", {"name": "m", "path": "/a", "kind": None, "base": None}),
        ("result", {"values": {"n": 1 << 80}}),
        ("result", {"values": {"text": "x" * (2 << 20)}}),
        ("hello", {}),  # a second one: the job runs already
        ("novelty", {}),
    ],
)
async def test_a_line_that_cannot_be_recorded_is_rejected_and_holds_up_nothing(
    desk: Desk, kind: str, data: dict[str, Any]
) -> None:
    await desk.start()
    await desk.say(("hello", {}))
    await desk.say(("progress", {"loss": 1.0}), (kind, data), ("progress", {"loss": 0.5}), first=2)
    assert (await desk.types())[-3:] == ["job.progress", "attempt.line_rejected", "job.progress"]
    await desk.port.ended(JOB, 1, Ending(exit_code=1))
    assert await desk.port.live() == []


async def test_a_damaged_line_is_told_of(desk: Desk) -> None:
    await desk.start()
    await desk.port.record(JOB, 1, [BadLine(1, "the checksum does not match")])
    (event,) = await desk.log.read(types={"attempt.line_rejected"})
    assert event.data == {"attempt": 1, "line": 1, "reason": "the checksum does not match"}


async def test_an_end_that_cannot_be_recorded_as_it_is_still_ends_the_attempt(desk: Desk) -> None:
    await desk.start()
    model: dict[str, Any] = {"name": "m\0", "path": "/a", "kind": "adapter", "base": None, "lineage": {}}
    await desk.say(("hello", {}), ("model", model), ("result", {"values": {}}))
    await desk.port.ended(JOB, 1, Ending(exit_code=0))
    assert await desk.port.live() == []
    assert (await desk.types())[-1] == "job.failed"
    (slot,) = (await desk.board.world()).slots.values()
    assert slot.holder is None


async def test_why_a_bundle_asked_for_a_stop_that_the_log_does_not_know_is_recorded(desk: Desk) -> None:
    await desk.start()
    await desk.say(("hello", {}))
    await desk.port.ended(JOB, 1, Ending(exit_code=75, asked="lunch"))
    (ended,) = await desk.log.read(types={"attempt.ended"})
    assert (ended.data["outcome"], ended.data["cause"]) == (
        "paused", "it was asked to stop: lunch",
    )  # fmt: skip


async def test_a_job_goes_on_from_a_checkpoint_of_which_the_log_has_not_heard(desk: Desk) -> None:
    await desk.start()
    bundle = desk.jobs_dir / JOB / "attempts" / "1"
    (bundle / "work" / "new").mkdir(parents=True)
    (bundle / "checkpoints").mkdir()
    (bundle / "work" / "new" / "weights").write_bytes(b"1")
    saved, _ = checkpoints.publish(bundle / "work" / "new", bundle / "checkpoints", step=7, metrics={})
    await desk.say(("hello", {}))
    await desk.port.ended(JOB, 1, Ending(signal=9))
    assert (await desk.board.world()).jobs[JOB].resume_from == str(saved)


async def test_an_end_that_finds_no_room_again_and_again_has_its_checkpoint_read_through_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    execute, saved = desk.log.execute, Path("/somewhere/checkpoint-7")

    def newest(_jobs_dir: Path, job: Any) -> tuple[Path, int]:
        looked.append(job.id)
        return saved, 7

    async def full(*_args: Any, **_kwargs: Any) -> Any:
        raise LogFullError("the disk is full")

    await desk.start()
    await desk.say(("hello", {}))
    monkeypatch.setattr(attempt_log, "newest_checkpoint", newest)
    monkeypatch.setattr(desk.log, "execute", full)
    for _ in range(5):
        with pytest.raises(NoRoomError):
            await desk.port.ended(JOB, 1, Ending(signal=9))
    monkeypatch.setattr(desk.log, "execute", execute)
    await desk.port.ended(JOB, 1, Ending(signal=9))
    assert looked == [JOB]
    assert (await desk.board.world()).jobs[JOB].resume_from == str(saved)
    assert desk.port._newest == {}


async def test_the_runner_is_recorded_once_and_the_live_attempt_is_told_with_its_cursor(desk: Desk) -> None:
    await desk.start()
    runner = RunnerIdentity(boot_id="b", pid=1, start_time=2, process_group=1)
    await desk.port.launched(JOB, 1, runner)
    await desk.port.launched(JOB, 1, runner)
    await desk.say(("hello", {}), ("progress", {"loss": 1.0}))
    (live,) = await desk.port.live()
    assert await desk.port.known() == {JOB: 1}
    assert (live.job, live.number, live.purpose, live.line, live.stop) == (JOB, 1, "run", 2, None)
    assert (await desk.types()).count("attempt.launched") == 1
    await desk.log.execute(lambda world: decisions.cancel(world, JOB, actor="a", reason="enough"))
    assert [each.stop for each in await desk.port.live()] == [StopOrder(reason="enough")]


async def test_the_worker_is_told_what_the_job_says(desk: Desk) -> None:
    registered = facts.ModelRegistered(name="bot", path="/m", kind="model", base=None, job=None)
    await desk.log.append(
        [NewEvent(stream="model/bot", type=registered.type, data=registered.to_data(), actor="daemon")]
    )
    await desk.start(params={"steps": 3}, models={"model": "/m"})
    spec = await desk.port.spec(JOB, 1)
    assert (spec.entry, spec.params, spec.models) == ("finetuned_sdk.fake:run", {"steps": 3}, {"model": "/m"})
    assert spec.params_model == "finetuned_sdk.fake:FakeParams"
    assert spec.devices == ("cpu:0",)
    assert spec.environment["CUDA_VISIBLE_DEVICES"] == ""


async def test_what_cannot_be_specified_is_said_and_not_tried_for_ever(desk: Desk) -> None:
    await desk.start(validates=True)
    with pytest.raises(SpecUnavailableError, match="ended"):
        await desk.port.spec(JOB, 5)
    bare = {f: getattr(fake.FAKE, f) for f in fake.FAKE.__dataclass_fields__} | {"validator": None}
    desk.registry.job_kinds["fake"] = JobKind(**bare)
    with pytest.raises(SpecUnavailableError, match="no validator any more"):
        await desk.port.spec(JOB, 0)
    del desk.registry.job_kinds["fake"]
    with pytest.raises(SpecUnavailableError, match="not loaded"):
        await desk.port.spec(JOB, 0)


@pytest.fixture
def unsafe(tmp_path: Path) -> SecretStore:
    """A store whose only secret ``hf`` others can read."""
    store = SecretStore(tmp_path / "secrets")
    store.put("hf", "hf_abcdefgh")
    (store.directory / "hf").chmod(0o640)
    return store


async def test_a_secret_that_cannot_be_read_any_more_fails_the_job_at_its_first_attempt(
    desk: Desk, unsafe: SecretStore
) -> None:
    await desk.start(secrets={"HF_TOKEN": "secret:hf"})
    executor = LocalExecutor(partial(read_secrets, unsafe))
    async with anyio.create_task_group() as tasks:
        await tasks.start(Supervision(desk.jobs_dir, desk.port, executor).run)
        with anyio.fail_after(20):
            while (await desk.types())[-1] == "attempt.starting":  # noqa: ASYNC110 - looked at from outside
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    last = (await desk.log.read(stream=f"job/{JOB}"))[-1]
    assert (last.type, last.data["code"]) == ("job.failed", "secret_unsafe")
    assert last.data["message"].endswith("chmod 600 it. Then `finetune retry job-1`.")


def test_every_fact_that_a_worker_can_report_is_an_event_of_the_domain() -> None:
    from finetuned.attempt_reports import REPORTS
    from finetuned_sdk.spool import FACT_TYPES

    assert set(REPORTS) == FACT_TYPES
    assert {fact.type for fact in REPORTS.values()} <= set(facts.FACTS)


async def test_what_looks_like_a_token_in_a_workers_texts_is_masked_before_it_is_recorded(desk: Desk) -> None:
    token = "hf_" + "a1B2" * 8
    await desk.start()
    await desk.say(
        ("hello", {"pid": 7}),
        ("advice", {"setting": "s", "message": f"do not say {token}.", "figures": {}}),
        ("phase", {"phase": f"loading with {token}"}),
        ("phase", {"phase": [token]}),
        ("error", {"code": "c", "message": f"401 for https://me:{token}@hub/x", "retryable": False}),
    )
    told = [event.data for event in await desk.log.read(stream=f"job/{JOB}")]
    assert token not in repr(told)
    assert told[-4]["message"] == "do not say ***"
    assert told[-1]["message"] == "401 for ***hub/x"


async def test_what_the_watchdog_has_stopped_stays_stopped_without_new_patience(desk: Desk) -> None:
    await desk.start(timeouts={"pause_s": 7.0, "stall_s": 60.0})
    await desk.say(("hello", {"pid": 7}))

    async def order() -> StopOrder | None:
        (live,) = await desk.port.live()
        return live.stop

    async def intervene(action: str, reason: str) -> None:
        await desk.port.intervened(JOB, 1, Intervention(action=action, failure="stall", reason=reason))

    await intervene("dump_stacks", "no step for 60 s")
    assert await order() is None
    await intervene("request_stop", "no step for 60 s")
    asked = StopOrder(reason="no step for 60 s", checkpoint=True, patience_s=7.0, failure="stall")
    assert await order() == asked
    await intervene("terminate", "it did not stop within 7 s: no step for 60 s")
    assert await order() == replace(asked, patience_s=0.0)


async def test_a_worker_beats_often_enough_for_its_shortest_time_out(desk: Desk) -> None:
    await desk.start(timeouts={"stall_s": 3.0, "max_duration_s": None})
    (live,) = await desk.port.live()
    assert (live.timeouts.stall_s, live.timeouts.max_duration_s) == (3.0, None)
    assert (await desk.port.spec(JOB, 1)).heartbeat_s == 1.0
