"""TRL's SFT trainer with a stopwatch: how long a step takes, and how much of it is waiting for data."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import trl
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from finetuned_sdk import WorkerContext
from finetuned_sft.loader_processes import LoaderContext


@dataclass
class StepMeter:
    """Sums since the last reading: seconds of stepping (evaluation and saving excluded), of waiting, and rows."""

    waited: float = 0.0
    rows: int = 0
    _started: float = field(default_factory=time.perf_counter)
    _apart: float = 0.0

    def restart(self) -> None:
        """Begin anew, now."""
        self.waited, self.rows, self._apart = 0.0, 0, 0.0
        self._started = time.perf_counter()

    def spent_apart(self, seconds: float) -> None:
        """Leave out time that was no part of a step."""
        self._apart += seconds

    def elapsed(self) -> float:
        """Seconds of stepping since the last restart."""
        return max(time.perf_counter() - self._started - self._apart, 1e-9)


class MeteredSFTTrainer(trl.SFTTrainer):
    """Measures each wait for a batch, says what phase the job is in, and does not phone home."""

    def __init__(self, ctx: WorkerContext, meter: StepMeter, **kwargs: Any) -> None:
        self.ctx = ctx
        self.meter = meter
        super().__init__(**kwargs)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super()._get_dataloader(*args, **kwargs)
        if loader.num_workers:
            loader.multiprocessing_context = LoaderContext()
        return loader

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        started = time.perf_counter()
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.meter.waited += time.perf_counter() - started
        self.meter.rows += sum(map(_rows, batches))
        return batches, items

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        started = time.perf_counter()
        self.ctx.phase("evaluating")
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        self.ctx.phase("training")
        self.meter.spent_apart(time.perf_counter() - started)
        return metrics

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        started = time.perf_counter()
        self.ctx.phase("saving")
        super()._save_checkpoint(*args, **kwargs)
        self.meter.spent_apart(time.perf_counter() - started)

    def restore(self, checkpoint: str) -> None:
        """Take over a run whose last step is done: transformers would train one step more."""
        self._load_from_checkpoint(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
        control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()
        self.callback_handler.on_train_end(self.args, self.state, control)

    def _send_telemetry(self) -> None:
        """TRL reports trainer, model family and GPU to the hub; what runs here is the owner's business."""


def _rows(batch: dict[str, Any]) -> int:
    """Rows in a batch, by shapes alone so that no device has to be waited for."""
    if "cu_seq_lens_q" in batch:  # packed: one long sequence of several rows
        return int(batch["cu_seq_lens_q"].shape[0]) - 1
    return int(batch["input_ids"].shape[0])
