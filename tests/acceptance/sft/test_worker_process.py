"""The trainer in a worker process of its own: killed, terminated, resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import checkpoints
from finetuned_sdk.bundle import STOPPED_EXIT_CODE, Bundle, Spec
from finetuned_sdk.spool import Fact, parse
from finetuned_sdk.testing import RecordingContext
from finetuned_sft.params import SFTParams

from .conftest import MakeContext, MakeRows, chat

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PATIENCE = 90.0  # seconds; importing torch takes a while on a busy machine


class Worker:
    """One attempt in a session of its own, as the runner starts it."""

    def __init__(
        self, directory: Path, params: SFTParams, entry: str = "finetuned_sft.trainer:train", path: str = ""
    ) -> None:
        self.bundle = Bundle(directory)
        spec = Spec(
            job="job-real",
            attempt=1,
            kind="sft",
            entry=entry,
            params=params.model_dump(mode="json"),
            params_model="finetuned_sft.params:SFTParams",
            interpreter=sys.executable,
            models={"model": params.model},
            devices=("cpu:0",),
            metadata={},
        )
        self.bundle.create(spec)
        with (directory / "output.log").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "finetuned_sdk.worker", str(directory)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path},
            )

    def facts(self) -> list[Fact]:
        raw = self.bundle.spool_path.read_bytes() if self.bundle.spool_path.exists() else b""
        return [line for line in parse(raw, after=0)[0] if isinstance(line, Fact)]

    def wait_until(self, condition: Callable[[list[Fact]], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition(self.facts()):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.01)

    def signal_group(self, number: int) -> int:
        """Signal everything in the attempt's session; the exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(PATIENCE)

    def output(self) -> str:
        return (self.bundle.spool_path.parent / "output.log").read_text(errors="replace")[-3000:]


@pytest.fixture
def params(tiny_model: str, make_rows: MakeRows) -> SFTParams:
    return SFTParams(
        model=tiny_model,
        dataset=make_rows("rows.jsonl", map(chat, range(30))),
        max_steps=5000,
        save_steps=10,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_length=64,
        lora_dropout=0.1,
    )


@pytest.fixture
def worker(tmp_path: Path, params: SFTParams) -> Iterator[Worker]:
    (tmp_path / "bundle").mkdir()
    worker = Worker(tmp_path / "bundle", params)
    yield worker
    if worker.process.poll() is None:
        worker.signal_group(signal.SIGKILL)


def has_checkpoint(facts: list[Fact]) -> bool:
    return any(fact.type == "checkpoint" and fact.data["step"] >= 20 for fact in facts)


def losses(
    make_context: MakeContext,
    params: SFTParams,
    monkeypatch: pytest.MonkeyPatch,
    *,
    until: int,
    **kwargs: Any,
) -> dict[int, float]:
    """The loss of each step, of a run that is stopped at step ``until``."""
    from finetuned_sft.trainer import train

    report = RecordingContext.progress

    def progress(self: RecordingContext, **figures: Any) -> None:
        report(self, **figures)
        if figures["current_step"] >= until - 1:
            self.request_stop("enough", checkpoint=False)

    with monkeypatch.context() as patch:
        patch.setattr(RecordingContext, "progress", progress)
        ctx = make_context(params, **kwargs)
        train(ctx, params)
    return {fact["current_step"]: fact["loss"] for fact in ctx.of_type("progress")}


def test_a_killed_worker_is_resumed_to_the_same_losses(
    worker: Worker, params: SFTParams, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.wait_until(has_checkpoint)
    assert worker.signal_group(signal.SIGKILL) == -signal.SIGKILL
    newest = checkpoints.newest_complete(checkpoints.complete(worker.bundle.checkpoints))
    assert newest is not None
    step = int(newest.name.removeprefix("checkpoint-"))
    whole = losses(make_context, params, monkeypatch, until=step + 4)
    resumed = losses(make_context, params, monkeypatch, until=step + 4, resume_from=newest)
    assert list(resumed) == [step + 1, step + 2, step + 3, step + 4]
    assert resumed == {number: whole[number] for number in resumed}
    reported = {f.data["current_step"]: f.data["loss"] for f in worker.facts() if f.type == "progress"}
    assert all(whole[number] == loss for number, loss in reported.items() if number in whole)


def test_a_terminated_group_stops_at_a_step_without_an_error(worker: Worker) -> None:
    worker.wait_until(has_checkpoint)
    assert worker.signal_group(signal.SIGTERM) == STOPPED_EXIT_CODE, worker.output()
    assert not {fact.type for fact in worker.facts()} & {"error", "result", "model"}
    with pytest.raises(ProcessLookupError):
        os.killpg(worker.process.pid, 0)


def test_a_pause_saves_a_checkpoint_of_the_step_it_ends_with(worker: Worker) -> None:
    worker.wait_until(has_checkpoint)
    worker.bundle.request_stop("pause", checkpoint=True)
    assert worker.process.wait(PATIENCE) == STOPPED_EXIT_CODE, worker.output()
    facts = worker.facts()
    saved = [fact.data["step"] for fact in facts if fact.type == "checkpoint"][-1]
    trained = [fact.data["current_step"] for fact in facts if fact.type == "progress"][-1]
    assert saved == trained


def test_a_worker_that_fails_in_the_midst_of_a_step_ends_with_its_loader(
    tmp_path: Path, params: SFTParams
) -> None:
    (tmp_path / "failing.py").write_text(
        "from finetuned_sft import trainer\nfrom finetuned_training import reporting\n"
        "def fail(self, args, state, control, **kwargs):\n"
        "    if state.global_step == 3: raise RuntimeError('as if')\n"
        "def train(ctx, params):\n"
        "    reporting.Reporter.on_log = fail\n"
        "    trainer.train(ctx, params)\n"
    )
    (tmp_path / "bundle").mkdir()
    worker = Worker(tmp_path / "bundle", params, entry="failing:train", path=str(tmp_path))
    assert worker.process.wait(PATIENCE) == 1, worker.output()
    assert [fact.data["message"] for fact in worker.facts() if fact.type == "error"] == [
        "RuntimeError: as if"
    ]
    with pytest.raises(ProcessLookupError):
        os.killpg(worker.process.pid, 0)
