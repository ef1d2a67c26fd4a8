"""``checkpoint``: keep the best and the newest checkpoints, discard the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetuned_callbacks.params import CheckpointParams
from finetuned_sdk import WorkerContext
from finetuned_sdk.retention import Retention


def create(ctx: WorkerContext, params: CheckpointParams) -> CheckpointCallback:
    """Make the callback."""
    return CheckpointCallback(ctx, params)


class CheckpointCallback(TrainerCallback):
    """Applies retention whenever a checkpoint was saved, and once more at the end."""

    def __init__(self, ctx: WorkerContext, params: CheckpointParams) -> None:
        self.ctx = ctx
        self.rule = Retention(
            last=params.last,
            best=params.best,
            metric=params.metric,
            greater_is_better=params.greater_is_better,
        )
        self._evaluated: dict[int, float | None] = {}

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember the figure of this step: the checkpoint of it is saved next."""
        del args, control
        value = (kwargs.get("metrics") or {}).get(self.rule.metric)
        if isinstance(value, int | float):
            self._evaluated[state.global_step] = float(value)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply retention."""
        del control, kwargs
        self._retain(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply retention to what was published after the last save's callbacks."""
        del control, kwargs
        self._retain(args, state)

    def _retain(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        logged: dict[int, float | None] = {
            entry["step"]: float(entry[self.rule.metric])
            for entry in state.log_history
            if isinstance(entry.get(self.rule.metric), int | float)
        }
        best = state.best_model_checkpoint
        goes_back = args.load_best_model_at_end and best is not None
        self.ctx.retain(
            self.rule,
            protected=[Path(best)] if goes_back else [],  # the trainer loads it at the end
            figures=logged | self._evaluated,
        )
