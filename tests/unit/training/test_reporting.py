"""The reporter without a trainer: what it makes of a resumed run's past, and of its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import JobError, manifest
from finetuned_sdk.testing import RecordingContext
from finetuned_training.loss_guard import PATIENCE

pytestmark = pytest.mark.torch

NOTHING: Any = None


def reporter(ctx: RecordingContext, **changes: Any) -> Any:
    from finetuned_training.metering import StepMeter
    from finetuned_training.reporting import Reporter

    settings: dict[str, Any] = {
        "workers": 0,
        "cpu_count": 1,
        "save_total_limit": None,
        "max_loss_ratio": 3.0,
        "data": {},
    }
    return Reporter(ctx, StepMeter(), **settings | changes)


def state_after(losses: list[float]) -> Any:
    from transformers import TrainerState

    logs: list[dict[str, float]] = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    return TrainerState(global_step=len(losses), max_steps=1000, log_history=logs)


def log(of: Any, state: Any, loss: float) -> None:
    state.global_step += 1
    of.on_log(NOTHING, state, NOTHING, logs={"loss": loss, "epoch": 0.1})


def test_a_resumed_run_is_judged_by_the_losses_from_before(tmp_path: Path) -> None:
    state = state_after([2.0] * 10 + [9.0] * (PATIENCE - 1))
    resumed = reporter(RecordingContext(tmp_path))
    resumed.on_train_begin(NOTHING, state, NOTHING)
    with pytest.raises(JobError, match="more than 3 times its best level") as caught:
        log(resumed, state, 9.0)
    assert caught.value.code == "loss_diverged"
    assert "lower learning_rate" in caught.value.message


def test_a_resumed_run_counts_the_tokens_of_its_own_steps_for_their_rate(tmp_path: Path) -> None:
    from finetuned_training.metering import SUMS

    ctx = RecordingContext(tmp_path)
    state = state_after([2.0])
    state.stateful_callbacks[SUMS] = {"args": {}, "attributes": {"tokens": 500}}
    resumed = reporter(ctx)
    seconds = 0.0
    resumed.meter.clock = lambda: seconds
    resumed.on_train_begin(NOTHING, state, NOTHING)
    resumed.on_step_begin(NOTHING, state, NOTHING)
    seconds = 2.0
    resumed.on_log(NOTHING, state, NOTHING, logs={"loss": 1.0, "num_tokens": 600, "epoch": 0.1})
    assert ctx.of_type("progress")[-1]["tokens_per_second"] == 50


def test_a_resumed_run_still_knows_the_loss_of_its_last_evaluation(tmp_path: Path) -> None:
    ctx = RecordingContext(tmp_path)
    state = state_after([2.0, 1.9])
    state.log_history.append({"step": 2, "eval_loss": 1.5})
    resumed = reporter(ctx)
    resumed.on_train_begin(NOTHING, state, NOTHING)
    log(resumed, state, 1.8)
    (report,) = ctx.of_type("progress")
    assert (report["current_step"], report["loss"], report["eval_loss"]) == (3, 1.8, 1.5)


def test_without_a_threshold_a_loss_may_be_as_large_as_it_likes(tmp_path: Path) -> None:
    state = state_after([2.0] * 10 + [9.0] * PATIENCE)
    resumed = reporter(RecordingContext(tmp_path), max_loss_ratio=None)
    resumed.on_train_begin(NOTHING, state, NOTHING)
    log(resumed, state, 9.0)


def test_a_checkpoint_carries_all_that_was_evaluated_at_its_step(tmp_path: Path) -> None:
    """Also what callbacks that come later add to the metrics: retention judges by it after a resume."""
    from types import SimpleNamespace

    ctx = RecordingContext(tmp_path)
    state = state_after([2.0])
    reports = reporter(ctx)
    metrics = {"eval_loss": 1.5, "epoch": 0.1}
    state.log_history.append({"step": 1, "eval_loss": 1.5})
    reports.on_evaluate(NOTHING, state, NOTHING, metrics=metrics)
    metrics["eval_exact_match"] = 0.25
    (ctx.work_dir / "checkpoint-1").mkdir()
    reports.on_save(SimpleNamespace(output_dir=str(ctx.work_dir)), state, NOTHING)
    (path,) = ctx.checkpoints
    assert manifest.read(path).about["metrics"] == {
        "loss": None,
        "eval_loss": 1.5,
        "eval_exact_match": 0.25,
    }


def test_figures_of_an_earlier_evaluation_are_not_the_checkpoints(tmp_path: Path) -> None:
    from types import SimpleNamespace

    ctx = RecordingContext(tmp_path)
    state = state_after([2.0])
    reports = reporter(ctx)
    state.log_history.append({"step": 1, "eval_loss": 1.5})
    reports.on_evaluate(NOTHING, state, NOTHING, metrics={"eval_loss": 1.5})
    state.global_step = 2
    (ctx.work_dir / "checkpoint-2").mkdir()
    reports.on_save(SimpleNamespace(output_dir=str(ctx.work_dir)), state, NOTHING)
    (path,) = ctx.checkpoints
    assert manifest.read(path).about["metrics"] == {"loss": None, "eval_loss": None}
