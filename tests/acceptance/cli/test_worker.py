"""``finetune worker`` against the real application; its GPU is faked at NVML, and nothing runs the jobs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio.from_thread
import pytest
from anyio.from_thread import BlockingPortal
from tests.acceptance.cli.conftest import Apart, apart

from finetuned.domain import decisions, facts
from finetuned.telemetry.testing import FakeGpu, FakeMemory, FakeNvml
from finetuned.testing import House, serve_house


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with anyio.from_thread.start_blocking_portal() as opened:
        yield opened


@pytest.fixture
def house(portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A served daemon with one GPU, on a loop of its own."""
    nvml = FakeNvml(FakeGpu("GPU-a", memory=FakeMemory(total=80_000_000_000, used=2_000_000_000)))
    with (
        tempfile.TemporaryDirectory(prefix="ft-") as state,
        portal.wrap_async_context_manager(serve_house(Path(state), nvml=nvml)) as served,
    ):
        monkeypatch.setenv("FINETUNED_SOCKET", str(served.addresses.socket))
        monkeypatch.delenv("FINETUNED_URL", raising=False)
        monkeypatch.setenv("COLUMNS", "200")
        yield served


@pytest.fixture
def finetune(house: House, capsys: pytest.CaptureFixture[str]) -> Apart:
    return apart(capsys)


@pytest.fixture
def engine(house: House, portal: BlockingPortal) -> str:
    """An engine that answers; its job."""

    async def made() -> str:
        fact = facts.JobSubmitted(
            kind="fake-engine", name=None, params={}, priority=0, metadata={}, devices=1, validates=False,
            max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None, serves="key",
        )  # fmt: skip
        await house.log.execute(lambda world: decisions.submit(world, "job-e", fact, actor="test"))
        await house.start_attempt()
        await house.report("job-e", facts.AttemptStarted(attempt=1), facts.JobPhase(phase="serving"))
        return "job-e"

    return portal.call(made)


def test_an_engines_queue_is_shown(finetune: Apart, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetuned.engines.gate.STATUS_S", 60)
    code, out, _ = finetune("worker", "status")
    assert code == 0
    assert engine in out
    assert "0 + 0 waiting" in out
    assert json.loads(finetune("worker", "status", "--json")[1])["data"][0]["engine"]["waiting"] == 0


def test_no_worker_is_said(finetune: Apart) -> None:
    assert "No worker lives" in finetune("worker", "status")[2]


def test_a_worker_is_asked_to_leave_or_killed(finetune: Apart, engine: str) -> None:
    assert "asked to leave" in finetune("worker", "restart", engine)[1]
    assert "being killed" in finetune("worker", "kill", engine)[1]
    assert finetune("worker", "kill", "job-none")[0] == 3


def test_a_gpu_is_cleared_with_its_figures(finetune: Apart) -> None:
    code, out, _ = finetune("worker", "clear-gpu")
    assert code == 0
    assert "0 idle engines ended" in out
    assert "2000 MB" in out
    assert json.loads(finetune("worker", "clear-gpu", "--json")[1])["freed_bytes"] == 0


def test_a_workers_output_is_that_of_its_job(finetune: Apart, engine: str) -> None:
    assert finetune("worker", "logs", engine, "--tail", "5")[0] == 0
