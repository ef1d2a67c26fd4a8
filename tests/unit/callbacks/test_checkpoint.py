from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from finetuned_callbacks.params import CheckpointParams
from finetuned_sdk.testing import RecordingContext

pytestmark = pytest.mark.torch

STAYS: Any = SimpleNamespace(load_best_model_at_end=False)
GOES_BACK: Any = SimpleNamespace(load_best_model_at_end=True)


def save(ctx: RecordingContext, step: int, **metrics: float) -> None:
    directory = ctx.work_dir / f"saving-{step}"
    directory.mkdir()
    (directory / "weights").write_text(str(step))
    ctx.checkpoint(directory, step=step, metrics=metrics)


def left(ctx: RecordingContext) -> list[str]:
    return [path.name for path in ctx.checkpoints]


def run(ctx: RecordingContext, params: CheckpointParams, figures: dict[int, float]) -> Any:
    from transformers import TrainerState

    from finetuned_callbacks import checkpoint

    callback = checkpoint.create(ctx, params)
    for step, figure in figures.items():
        state = TrainerState(global_step=step)
        callback.on_evaluate(None, state, None, metrics={params.metric: figure})
        save(ctx, step)
        callback.on_save(STAYS, state, None)
    return callback


def test_the_best_and_the_newest_stay(tmp_path: Path) -> None:
    ctx = RecordingContext(tmp_path)
    run(ctx, CheckpointParams(best=1, last=1), {1: 0.3, 2: 0.1, 3: 0.2, 4: 0.4})
    assert left(ctx) == ["checkpoint-2", "checkpoint-4"]
    assert [Path(fact["path"]).name for fact in ctx.of_type("checkpoint_discarded")] == [
        "checkpoint-1",
        "checkpoint-3",
    ]


def test_more_of_an_accuracy_is_better(tmp_path: Path) -> None:
    ctx = RecordingContext(tmp_path)
    run(ctx, CheckpointParams(best=2, last=0, metric="eval_exact_match"), {1: 0.3, 2: 0.1, 3: 0.2})
    assert left(ctx) == ["checkpoint-1", "checkpoint-3"]


def test_without_figures_the_only_complete_checkpoint_stays(tmp_path: Path) -> None:
    ctx = RecordingContext(tmp_path)
    callback = run(ctx, CheckpointParams(best=1, last=0), {})
    from transformers import TrainerState

    save(ctx, 1)
    callback.on_save(STAYS, TrainerState(global_step=1), None)
    assert left(ctx) == ["checkpoint-1"]


def test_a_resumed_job_judges_by_the_manifests_and_the_log(tmp_path: Path) -> None:
    from transformers import TrainerState

    from finetuned_callbacks import checkpoint

    ctx = RecordingContext(tmp_path)
    save(ctx, 1, eval_loss=0.1)
    save(ctx, 2, eval_loss=0.5)
    save(ctx, 3)
    callback = checkpoint.create(ctx, CheckpointParams(best=2, last=0))
    state = TrainerState(global_step=3, log_history=[{"step": 3, "eval_loss": 0.2}])
    callback.on_train_end(STAYS, state, None)
    assert left(ctx) == ["checkpoint-1", "checkpoint-3"]


def test_the_one_that_the_trainer_will_go_back_to_stays(tmp_path: Path) -> None:
    from transformers import TrainerState

    from finetuned_callbacks import checkpoint

    ctx = RecordingContext(tmp_path)
    for step in (1, 2, 3):
        save(ctx, step)
    best = str(ctx.checkpoints[0])
    callback = checkpoint.create(ctx, CheckpointParams(last=1))
    callback.on_save(GOES_BACK, TrainerState(global_step=3, best_model_checkpoint=best), None)
    assert left(ctx) == ["checkpoint-1", "checkpoint-3"]


def test_a_best_one_that_nobody_goes_back_to_is_judged_like_the_others(tmp_path: Path) -> None:
    from transformers import TrainerState

    from finetuned_callbacks import checkpoint

    ctx = RecordingContext(tmp_path)
    for step in (1, 2, 3):
        save(ctx, step)
    best = str(ctx.checkpoints[0])
    callback = checkpoint.create(ctx, CheckpointParams(last=1))
    callback.on_save(STAYS, TrainerState(global_step=3, best_model_checkpoint=best), None)
    assert left(ctx) == ["checkpoint-3"]


def test_keeping_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="keeps no checkpoint"):
        CheckpointParams(best=0, last=0)
