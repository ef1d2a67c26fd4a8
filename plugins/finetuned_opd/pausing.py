"""What is kept of a run whose teacher cannot be asked, so that it goes on as if it always could have been."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetuned_training.metering import MeteredTrainer

OWED: Final = "OwedEvaluation"  # its name among the states of callbacks in trainer_state.json


class ResumableTrainer(MeteredTrainer):
    """A trainer that can save the step that was done last at any time, not only at its end."""

    _resumed_from: Path | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._keeper = StepKeeper(self)
        self.add_callback(self._keeper)

    def run(self, resume_from: Path | None, steps: int) -> None:
        """As any metered trainer does."""
        self._resumed_from = resume_from
        super().run(resume_from, steps)

    def keep_step(self, *, evaluated: bool = True) -> None:
        """Save the newest step, unless it is. Not ``evaluated``: its evaluation was due, and is when the run goes on."""
        if self.state.global_step <= self._keeper.kept:
            return
        if not evaluated:
            self.state.stateful_callbacks[OWED] = {"args": {}, "attributes": {}}
        self._keeper.rewind_numbers(self.state.global_step)
        self._save_checkpoint(self.model, trial=None)
        self.control: TrainerControl = self.callback_handler.on_save(self.args, self.state, self.control)

    def evaluate_if_owed(self) -> None:
        """Evaluate the step that the run goes on from, if its evaluation was cut short."""
        if OWED not in self.state.stateful_callbacks:
            return
        metrics = self._evaluate(None, None)
        del self.state.stateful_callbacks[OWED]
        if self._determine_best_metric(metrics, None):
            self.state.best_model_checkpoint = str(self._resumed_from)


class StepKeeper(TrainerCallback):
    """Knows the step of the newest checkpoint, or the one that the run began at."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.kept = 0
        self._trainer = trainer
        self._epoch_began: tuple[int, torch.Tensor] | None = None

    def rewind_numbers(self, step: int) -> None:
        """Take back what an epoch's first batch has drawn from the random numbers, if no step of it is done.

        A run that goes on begins the epoch itself, and would draw from them once more.
        """
        if self._epoch_began is not None and self._epoch_began[0] == step:
            torch.set_rng_state(self._epoch_began[1])

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        self.kept = state.global_step
        self._trainer.evaluate_if_owed()

    def on_epoch_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        self._epoch_began = state.global_step, torch.get_rng_state()

    def on_save(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        self.kept = state.global_step
