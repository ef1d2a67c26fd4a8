"""``checkpoint``: keep the best and the newest checkpoints, discard the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetuned_callbacks import retention
from finetuned_callbacks.params import CheckpointParams
from finetuned_sdk import WorkerContext, manifest


def create(ctx: WorkerContext, params: CheckpointParams) -> CheckpointCallback:
    """Make the callback."""
    return CheckpointCallback(ctx, params)


class CheckpointCallback(TrainerCallback):
    """Applies retention whenever a checkpoint was saved, and once more at the end."""

    def __init__(self, ctx: WorkerContext, params: CheckpointParams) -> None:
        self.ctx = ctx
        self.params = params
        self.greater = (
            retention.greater_is_better(params.metric)
            if params.greater_is_better is None
            else params.greater_is_better
        )
        self._evaluated: dict[int, float] = {}

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember the figure of this step: the checkpoint of it is saved next."""
        del args, control
        value = (kwargs.get("metrics") or {}).get(self.params.metric)
        if isinstance(value, int | float):
            self._evaluated[state.global_step] = float(value)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply retention."""
        del args, control, kwargs
        self._retain(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply retention to what was published after the last save's callbacks."""
        del args, control, kwargs
        self._retain(state)

    def _retain(self, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        paths = self._by_step()
        figures = {step: self._figure(step, path, state) for step, path in paths.items()}
        keep = retention.kept(figures, best=self.params.best, last=self.params.last, greater=self.greater)
        for step in sorted(paths.keys() - keep):
            if str(paths[step]) != state.best_model_checkpoint:  # the trainer may go back to it at the end
                self.ctx.discard_checkpoint(paths[step])

    def _by_step(self) -> dict[int, Path]:
        return {int(manifest.read(path).about["step"]): path for path in self.ctx.checkpoints}

    def _figure(self, step: int, path: Path, state: TrainerState) -> float | None:
        """The metric of a checkpoint: as evaluated, as its manifest says, or as the log has it."""
        if step in self._evaluated:
            return self._evaluated[step]
        sources = [manifest.read(path).about.get("metrics") or {}]
        sources += [entry for entry in state.log_history if entry.get("step") == step]
        values = (source.get(self.params.metric) for source in sources)
        return next((float(value) for value in values if isinstance(value, int | float)), None)
