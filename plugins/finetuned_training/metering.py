"""A trainer with a stopwatch (how long a step takes, and how much of it is waiting for data), and with sums that
outlive a resume.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from finetuned_sdk import WorkerContext, phases
from finetuned_training.labelled_head import labelled_only
from finetuned_training.loader_processes import LoaderContext
from finetuned_training.quantized import types_kept
from finetuned_training.step_sampler import StepSortedSampler
from finetuned_training.token_lengths import token_lengths

SUMS = "UnloggedSums"  # their name among the states of callbacks in trainer_state.json
BATCH = "FoundBatch"  # the name of what was found for a batch of auto, there too


@dataclass
class StepMeter:
    """Sums since the last reading: seconds of stepping, seconds waited for batches in them, and rows.

    It stands while callbacks, evaluation and saving are at work.
    """

    clock: Callable[[], float] = time.perf_counter
    waited: float = 0.0
    rows: int = 0
    _begun: bool = False
    _started: float = 0.0
    _paused: float | None = None  # since when it stands

    def begin(self) -> None:
        """Start the clock at the first step; the rows fetched for it count, starting the loader does not."""
        if not self._begun:
            self._begun, self._started, self._paused, self.waited = True, self.clock(), None, 0.0

    def restart(self) -> None:
        """Begin anew, now."""
        self.waited, self.rows, self._started, self._paused = 0.0, 0, self.clock(), None

    def pause(self) -> None:
        """What follows is no part of a step."""
        if self._paused is None:
            self._paused = self.clock()

    def go_on(self) -> None:
        """The step goes on."""
        if self._paused is not None:
            self._started += self.clock() - self._paused
            self._paused = None

    def elapsed(self) -> float:
        """Seconds of stepping since the last restart."""
        return max((self.clock() if self._paused is None else self._paused) - self._started, 1e-9)


class MeteredTrainer(Trainer):
    """Before one of TRL's trainers: measures waits for batches, says what phase the job is in, does not phone home.

    ``sorts`` has it sort the rows of each optimizer step by length.
    """

    _metrics: dict[str, dict[str, list[float]]]  # TRL's
    _total_train_tokens: float

    def __init__(self, ctx: WorkerContext, meter: StepMeter, *, sorts: bool = False, **kwargs: Any) -> None:
        self.ctx = ctx
        self.meter = meter
        self.sorts = sorts
        self.found_batch: dict[str, Any] | None = (
            None  # where the batch was left to us: goes into checkpoints
        )
        self._away = False  # evaluating or saving
        super().__init__(**kwargs)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super()._get_dataloader(*args, **kwargs)
        if loader.num_workers:
            # accelerate's loader is a shell around the one that makes the processes.
            loader.base_dataloader.multiprocessing_context = LoaderContext()
        if self.sorts and kwargs.get("is_training"):
            # Here, because accelerate has put a sampler of its own in the place of the trainer's by now.
            rows_a_step = self._train_batch_size * self.args.gradient_accumulation_steps
            lengths = token_lengths(self.train_dataset)
            loader.set_sampler(StepSortedSampler(loader.get_sampler(), lengths, rows_a_step))
        # Batches go to the device in training_step, so that the wait for the next one is for the host alone.
        loader.device = None
        return loader

    def take_batch(self, rows: int, passes: int, eval_rows: int) -> None:
        """Train with so many rows a pass and passes a step, as if it had been made with them."""
        self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps = rows, passes
        self.args.per_device_eval_batch_size = eval_rows
        self._train_batch_size = self.args.train_batch_size

    def try_pass(self, rows: Iterable[int]) -> None:
        """Forward and backward of these rows as in a step, before the first one; the gradients stay."""
        inputs = self._prepare_inputs(self.data_collator([self.train_dataset[row] for row in rows]))
        with self.accelerator.autocast():
            loss = self.compute_loss(self.model, inputs)
        self.accelerator.backward(loss)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is computed within counts in no figure."""
        kept = deepcopy(self._metrics), self._total_train_tokens
        try:
            yield
        finally:
            self._metrics, self._total_train_tokens = kept

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with labelled_only():
            return super().compute_loss(*args, **kwargs)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        self.meter.go_on()
        started = self.meter.clock()
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.meter.waited += self.meter.clock() - started
        self.meter.rows += sum(map(self.rows_in, batches))
        return batches, items

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        # A log waits for the device to end the step, so that belongs to it; the reporter pauses the meter then.
        if self.control.should_log:
            self.meter.go_on()
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self._away:  # only now are the callbacks done with it too
            self._away = False
            self.ctx.phase(phases.TRAINING)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self._leave_for(phases.EVALUATING)
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if kwargs["resume_from_checkpoint"] is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            self._restore_sums()  # transformers has just begun them anew
        super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._leave_for(phases.SAVING)
        self._keep_sums()
        super()._save_checkpoint(*args, **kwargs)

    def _keep_sums(self) -> None:
        """Put what was summed up since the newest log, and the batch, into the state, which is about to be written.

        Without it the first log after a resume would be the mean of the steps since the checkpoint alone, and would
        weigh as much as all steps since the log before.
        """
        self.state.stateful_callbacks[SUMS] = {
            "args": {},
            "attributes": {
                "step_of_log": self._globalstep_last_logged,
                "loss": self._tr_loss.item(),  # float32: a JSON number holds it to the last bit
                "metrics": {name: list(values) for name, values in self._metrics["train"].items()},
                "tokens": self._total_train_tokens,
            },
        }
        if self.found_batch is not None:
            self.state.stateful_callbacks[BATCH] = {"args": {}, "attributes": self.found_batch}

    def _restore_sums(self) -> None:
        """Go on from what the checkpoint holds; one of an older version holds nothing."""
        sums = kept_sums(self.state)
        if sums:
            self._globalstep_last_logged = sums["step_of_log"]
            self._tr_loss.fill_(sums["loss"])
            self._metrics["train"].update(sums["metrics"])
            self._total_train_tokens = sums["tokens"]

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with types_kept(self.model):
            super()._load_from_checkpoint(*args, **kwargs)

    def _load_best_model(self) -> None:
        self._leave_for(phases.SAVING)  # it is read to be published
        super()._load_best_model()

    def _leave_for(self, phase: str) -> None:
        self.meter.pause()
        self._away = True
        self.ctx.phase(phase)

    def rows_in(self, batch: dict[str, Any]) -> int:
        """Rows in a batch, by shapes alone so that no device has to be waited for."""
        if "cu_seq_lens_q" in batch:  # packed: one long sequence of several rows
            return int(batch["cu_seq_lens_q"].shape[0]) - 1
        return int(batch["input_ids"].shape[0])

    def run(self, resume_from: Path | None, steps: int) -> None:
        """Train, from the checkpoint on if there is one; ``steps`` is how many the whole run has."""
        if resume_from is not None and last_step(resume_from) >= steps:
            self._restore(str(resume_from))
        else:
            self.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))

    def _restore(self, checkpoint: str) -> None:
        """Take over a run whose last step is done: transformers would train one step more."""
        self._load_from_checkpoint(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
        control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        if not Path(self.state.best_model_checkpoint or "", TRAINER_STATE_NAME).is_file():
            self.state.best_model_checkpoint = None
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()
        self.callback_handler.on_train_end(self.args, self.state, control)

    def _send_telemetry(self) -> None:
        """TRL reports trainer, model family and GPU to the hub; what runs here is the owner's business."""


def kept_sums(state: TrainerState) -> dict[str, Any]:
    """What a checkpoint's state holds of the sums since the log before it; empty if it holds none."""
    attributes: dict[str, Any] = state.stateful_callbacks.get(SUMS, {}).get("attributes", {})
    return attributes


def last_step(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    step: int = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"]
    return step
