"""Interrupted wherever it may be and resumed, a run is the run that was never interrupted, to the last bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.small_disk import fill, small_disk

from finetuned_sdk import checkpoints, manifest
from finetuned_sdk.bundle import Bundle, Spec
from finetuned_sdk.spool import Fact, parse
from finetuned_sdk.testing import RecordingContext
from finetuned_sdk.worker_failures import describe
from finetuned_sft.params import SFTParams
from finetuned_training.reduction import reduce_memory

from .conftest import MakeContext, MakeRows, chat

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PATIENCE = 120.0
SERIES = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "current_epoch")

#: each with its seed; together they cover every setting that could part a resumed run from a straight one
CASES: Mapping[int, Mapping[str, Any]] = {
    1: {"lora_dropout": 0.1, "dataloader_num_workers": 1, "gradient_accumulation_steps": 1},
    2: {
        "method": "full",
        "dataloader_num_workers": 0,
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 2,
        "eval_split": 0.2,
        "eval_steps": 3,
    },
    3: {
        "lora_dropout": 0.1,
        "packing": True,
        "max_length": 48,
        "dataloader_num_workers": 1,
        "gradient_accumulation_steps": 1,
    },
    4: {
        "method": "full",
        "packing": True,
        "max_length": 48,
        "dataloader_num_workers": 0,
        "neftune_noise_alpha": 5,
        "gradient_accumulation_steps": 1,
        "eval_split": 0.2,
        "eval_steps": 2,
    },
}


class Crash(BaseException):
    """The process ends here, as far as a test in one process can show it."""


@pytest.fixture
def params(tiny_model: str, make_rows: MakeRows) -> Callable[..., SFTParams]:
    dataset = make_rows("twenty.jsonl", map(chat, range(20)))

    def make(**changes: Any) -> SFTParams:
        common = {"max_steps": 11, "save_steps": 2, "per_device_train_batch_size": 4, "max_length": 64}
        return SFTParams.model_validate(
            {
                "model": tiny_model,
                "dataset": dataset,
                "learning_rate": 1e-2,
                "warmup_steps": 0,
                **common,
                **changes,
            }
        )

    return make


def weights(ctx: RecordingContext) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = ctx.artifact_dir.glob("*/*model.safetensors")
    loaded: dict[str, Any] = load_file(file)
    return loaded


def reported(ctx: RecordingContext) -> dict[int, dict[str, Any]]:
    return {
        fact["current_step"]: {name: fact[name] for name in SERIES}
        for fact in ctx.of_type("progress")
        if fact["loss"] is not None
    }


def evaluations(ctx: RecordingContext) -> dict[int, float]:
    return {fact["step"]: fact["metrics"]["eval_loss"] for fact in ctx.of_type("evaluation")}


def newest(ctx: RecordingContext) -> Path | None:
    """What the next attempt goes on from."""
    return checkpoints.newest_in(ctx.work_dir.parents[1].iterdir())


def assert_same_run(attempts: list[RecordingContext], whole: RecordingContext) -> None:
    import torch

    straight = reported(whole)
    for ctx in attempts:
        found = reported(ctx)
        assert found == {step: straight[step] for step in found}
        assert evaluations(ctx).items() <= evaluations(whole).items()
    assert {step for ctx in attempts for step in reported(ctx)} == set(straight)
    assert {step for ctx in attempts for step in evaluations(ctx)} == set(evaluations(whole))
    assert attempts[-1].results["train_loss"] == whole.results["train_loss"]
    ours, theirs = weights(attempts[-1]), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("seed", CASES)
def test_a_run_that_is_paused_and_crashes_at_random_steps_equals_the_straight_one(
    params: Callable[..., SFTParams], make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    from finetuned_sft.trainer import train

    wanted = params(**CASES[seed])
    whole = make_context(wanted, job_id="straight")
    train(whole, wanted)

    draw = random.Random(seed)
    pause = draw.randint(2, 6)  # it is heeded at the end of the next step
    crash = draw.randint(pause + 2, 10)
    report = RecordingContext.progress

    def progress(self: RecordingContext, **figures: Any) -> None:
        report(self, **figures)
        if self.attempt == 1 and figures["current_step"] == pause:
            self.request_stop("pause", checkpoint=True)
        if self.attempt == 2 and figures["current_step"] == crash:
            raise Crash

    monkeypatch.setattr(RecordingContext, "progress", progress)
    attempts: list[RecordingContext] = []
    for number in (1, 2, 3):
        ctx = make_context(
            wanted, job_id="again", attempt=number, resume_from=newest(attempts[-1]) if attempts else None
        )
        attempts.append(ctx)
        try:
            train(ctx, wanted)
        except Crash:
            assert number == 2
    assert [bool(ctx.results) for ctx in attempts] == [False, False, True]
    assert_same_run(attempts, whole)
    left = list(ctx.work_dir.parents[1].glob("*/checkpoints/*"))
    assert len(left) <= 3  # two, and the best one: earlier attempts' are gone


# ---- killed while it writes a checkpoint ----------------------------------------------------------------

KILLER = """
import os, signal
from pathlib import Path
from finetuned_sdk import checkpoints, manifest
from finetuned_sft import trainer

def dying(function, nth):
    calls = 0
    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

def train(ctx, params):
    point = os.environ["KILL_AT"]
    if point == "weights are written, the optimizer is not":
        of = trainer.MeteredSFTTrainer
        of._save_optimizer_and_scheduler = dying(of._save_optimizer_and_scheduler, 3)
    else:  # it has its name, but no manifest
        checkpoints.manifest.write = dying(manifest.write, 3)
    trainer.train(ctx, params)
"""


@pytest.mark.parametrize(
    "point", ["weights are written, the optimizer is not", "it has its name, but no manifest"]
)
def test_a_worker_killed_while_it_writes_a_checkpoint_is_resumed_from_the_one_before(
    params: Callable[..., SFTParams], make_context: MakeContext, tmp_path: Path, point: str
) -> None:
    from finetuned_sft.trainer import train

    wanted = params(lora_dropout=0.1, dataloader_num_workers=1, gradient_accumulation_steps=1)
    ctx = make_context(wanted, job_id="killed")
    (tmp_path / "killer.py").write_text(KILLER)
    bundle = Bundle(ctx.work_dir.parent)
    spec = Spec(
        job="killed",
        attempt=1,
        kind="sft",
        entry="killer:train",
        params=wanted.model_dump(mode="json"),
        params_model="finetuned_sft.params:SFTParams",
        interpreter=sys.executable,
        models={"model": wanted.model},
        devices=("cpu:0",),
    )
    bundle.create(spec)
    environment = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(tmp_path),
        "KILL_AT": point,
    }
    worker = subprocess.run(
        [sys.executable, "-m", "finetuned_sdk.worker", str(bundle.path)],
        env=os.environ | environment,
        timeout=PATIENCE,
        check=False,
    )
    assert worker.returncode == -signal.SIGKILL
    lines, _ = parse(bundle.spool_path.read_bytes(), after=0)
    facts = [line for line in lines if isinstance(line, Fact)]
    told = [fact.data["step"] for fact in facts if fact.type == "checkpoint"]
    assert told == [2, 4]

    resumed = make_context(wanted, job_id="killed", attempt=2, resume_from=newest(ctx))
    assert resumed.resume_from is not None
    assert resumed.resume_from.name == "checkpoint-4"
    train(resumed, wanted)
    whole = make_context(wanted, job_id="straight")
    train(whole, wanted)
    straight = reported(whole)
    assert reported(resumed) == {step: straight[step] for step in range(5, 12)}
    for fact in facts:
        if fact.type == "progress" and fact.data["loss"] is not None:
            assert fact.data["loss"] == straight[fact.data["current_step"]]["loss"]
    import torch

    ours, theirs = weights(resumed), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# ---- with a smaller batch after memory ran out ----------------------------------------------------------


def rows_of_steps(
    ctx: RecordingContext, wanted: SFTParams, monkeypatch: pytest.MonkeyPatch
) -> list[list[tuple[int, ...]]]:
    """The rows that each optimizer step of a run learns from, padding left out, in order."""
    from finetuned_sft.trainer import MeteredSFTTrainer, train

    passes: list[tuple[int, list[tuple[int, ...]]]] = []
    original = MeteredSFTTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        rows = [
            tuple(ids[mask.bool()].tolist())
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        passes.append((self.state.global_step, rows))
        return original(self, model, inputs, *args)

    with monkeypatch.context() as patch:
        patch.setattr(MeteredSFTTrainer, "training_step", training_step)
        train(ctx, wanted)
    steps = sorted({step for step, _ in passes})
    return [[row for step, rows in passes if step == each for row in rows] for each in steps]


def test_a_smaller_batch_sees_the_same_rows_and_learns_the_same_also_after_a_resume(
    params: Callable[..., SFTParams],
    make_context: MakeContext,
    make_rows: MakeRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 22 rows of unlike lengths: the last step of each epoch has 2 rows, and the third step is within an epoch.
    rows = [
        {"messages": [*chat(n)["messages"], *(chat(n + 1)["messages"] if n % 3 else [])]} for n in range(22)
    ]
    full = params(
        dataset=make_rows("unlike.jsonl", rows),
        gradient_accumulation_steps=1,
        lora_dropout=0.0,
        save_steps=3,
        save_total_limit=9,
        max_steps=8,
    )
    halved = full.model_copy(update=dict(reduce_memory(full) or {}))
    assert (halved.per_device_train_batch_size, halved.gradient_accumulation_steps) == (2, 2)
    before, after = make_context(full), make_context(halved)
    steps = rows_of_steps(before, full, monkeypatch)
    assert [len(each) for each in steps] == [4, 4, 4, 4, 4, 2, 4, 4]
    assert rows_of_steps(after, halved, monkeypatch) == steps

    third = next(Path(fact["path"]) for fact in before.of_type("checkpoint") if fact["step"] == 3)
    resumed = make_context(halved, resume_from=third)
    assert rows_of_steps(resumed, halved, monkeypatch) == steps[3:]
    for name, tolerance in (("loss", 1e-4), ("grad_norm", 1e-2)):
        straight = [each[name] for each in reported(before).values()]
        assert [each[name] for each in reported(after).values()] == pytest.approx(straight, rel=tolerance)
        assert [each[name] for each in reported(resumed).values()] == pytest.approx(
            straight[3:], rel=tolerance
        )
    assert list(reported(resumed)) == [4, 5, 6, 7, 8]


# ---- when the disk is full ------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.pt"])
def test_a_disk_that_fills_while_a_checkpoint_is_written_is_told_as_such_and_costs_no_checkpoint(
    params: Callable[..., SFTParams], monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    from finetuned_sft.trainer import train

    wanted = params(dataloader_num_workers=0, gradient_accumulation_steps=1, max_steps=6)
    report = RecordingContext.progress

    with small_disk(16 << 20) as directory:

        def progress(self: RecordingContext, **figures: Any) -> None:
            report(self, **figures)
            if figures["current_step"] == 3:  # the next checkpoint finds room for what comes before the file
                sizes = {each.path: each.bytes for each in manifest.read(self.checkpoints[0]).files}
                before = sum(sizes.values()) - sizes["optimizer.pt"] if file == "optimizer.pt" else 0
                fill(directory, leave=before + sizes[file] // 2)

        monkeypatch.setattr(RecordingContext, "progress", progress)
        ctx = RecordingContext(
            directory, params=wanted.model_dump(mode="json"), models={"model": wanted.model}
        )
        with pytest.raises(Exception) as caught:  # safetensors' own, or torch's
            train(ctx, wanted)
        told = describe(caught.value, directory=directory)
        assert (told["code"], told["retryable"]) == ("disk_full", True), caught.value
        assert "are free at" in told["message"]
        assert checkpoints.newest_in([ctx.work_dir.parent]) == ctx.checkpoints[-1]
        assert [path.name for path in ctx.checkpoints] == ["checkpoint-2"]
