"""The table of a training's figures."""

from __future__ import annotations

from pathlib import Path

from finetuned_sdk.testing import RecordingContext
from finetuned_training import step_metrics


def test_each_step_has_a_row_with_what_was_measured() -> None:
    history: list[dict[str, float]] = [
        {"step": 1, "loss": 2.5, "mean_token_accuracy": 0.25, "epoch": 0.1},
        {"step": 2, "loss": 2.0},
        {"step": 2, "eval_loss": 2.25, "eval_runtime": 1.0},
        {"step": 2, "train_runtime": 5.0},
    ]
    assert step_metrics.table(history).splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,2.5,0.25,,",
        "2,2.0,,2.25,",
    ]


def test_it_is_published_as_a_file_of_results(tmp_path: Path) -> None:
    ctx = RecordingContext(tmp_path)
    step_metrics.publish(ctx, [])
    (artifact,) = ctx.of_type("artifact")
    assert (artifact["name"], artifact["kind"]) == ("step_metrics.csv", "file:fine-tune-results")
