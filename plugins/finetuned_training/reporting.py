"""The callback that tells the daemon how the training goes, publishes checkpoints and heeds stop requests."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from finetuned_sdk import JobError, WorkerContext, phases
from finetuned_sdk.retention import Retention
from finetuned_training import trained_data
from finetuned_training.loss_guard import LossGuard
from finetuned_training.metering import StepMeter, kept_sums
from finetuned_training.params import TrainingParams
from finetuned_training.settings import Resolved

WAIT_TOO_LONG = 0.10  # share of the steps' time spent waiting for data
ADVICE_STEPS = 20  # reports that are looked at before advice is given
WORTH_SAYING = 1.0  # seconds waited in them; below that, starting the loader is what is measured
REPORT_EVERY = 1.0  # seconds at most between reports, if steps are shorter

# What a log line of the trainer is called in a progress report; the rest keeps its name.
NAMES = {"epoch": "current_epoch"}


class Reporter(TrainerCallback):
    """Progress at every log and every second, checkpoints as they are written, a stop at the next step boundary."""

    def __init__(
        self,
        ctx: WorkerContext,
        meter: StepMeter,
        *,
        workers: int,
        cpu_count: int,
        save_total_limit: int | None,
        max_loss_ratio: float | None,
        data: trained_data.Hashes,
    ) -> None:
        self.ctx = ctx
        self.meter = meter
        self.workers = workers
        self.cpu_count = cpu_count
        self.save_total_limit = save_total_limit
        self.data = data
        self._tokens = 0
        self._guard = LossGuard(max_loss_ratio)
        self._evaluated: dict[str, Any] = {}
        self._wait = WaitWatch()
        self._latest: dict[str, float | None] = {}
        self._reported_at = float("-inf")

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        if self.ctx.resume_from is not None and state.best_global_step:
            # A best checkpoint that is not beside the one resumed from is an earlier attempt's: its path holds.
            state.best_model_checkpoint = (
                _checkpoint_at(self.ctx.resume_from.parent, state.best_global_step)
                or state.best_model_checkpoint
            )
        for log in state.log_history:  # a resumed run is judged as one that never stopped
            if "loss" in log:
                self._guard.add(log["loss"])
            elif "eval_loss" in log:
                self._latest["eval_loss"] = _finite(log["eval_loss"])
        self._tokens = kept_sums(state).get("tokens", 0)
        self.ctx.phase(phases.TRAINING)
        if state.global_step == 0:
            self._report(state)

    def on_step_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        self.meter.begin()

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any
    ) -> None:
        self.meter.pause()
        # A step that is logged is reported then, with its own figures.
        waited = time.monotonic() - self._reported_at >= REPORT_EVERY
        if not control.should_log and (waited or state.global_step >= state.max_steps):
            self._report(state)
        if self.ctx.checkpoint_requested:
            control.should_save = True
        request = self.ctx.stop_requested
        if request is not None:
            control.should_training_stop = True
            control.should_save = request.checkpoint
            # A run that goes on later must have been evaluated as often as one that never stopped.
            control.should_evaluate = control.should_evaluate and request.checkpoint

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_kwargs: Any,
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            self._latest |= {NAMES.get(name, name): _finite(value) for name, value in logs.items()}
            self._latest |= self._step_figures(logs, state)
        elif "eval_loss" in logs:
            self._latest["eval_loss"] = _finite(logs["eval_loss"])
        else:  # the summary at the end
            return
        self._report(state)
        if "loss" in logs:
            self._fail_if_diverged(logs["loss"], state.global_step)

    def _report(self, state: TrainerState) -> None:
        metrics: dict[str, Any] = self._latest
        self.ctx.progress(current_step=state.global_step, total_steps=state.max_steps, **metrics)
        self._reported_at = time.monotonic()

    def _step_figures(self, logs: dict[str, Any], state: TrainerState) -> dict[str, float | None]:
        elapsed, waited, rows = self.meter.elapsed(), self.meter.waited, self.meter.rows
        tokens, self._tokens = logs.get("num_tokens", 0) - self._tokens, logs.get("num_tokens", 0)
        self.meter.restart()
        self.meter.pause()  # what follows, evaluation and saving, is no part of a step
        wait_fraction = min(1.0, waited / elapsed)
        self._advise(self._wait.add(waited, elapsed))
        epoch = logs.get("epoch") or 0.0
        return {
            "total_epochs": round(epoch * state.max_steps / state.global_step, 2) if epoch else None,
            "samples_per_second": rows / elapsed,
            "tokens_per_second": tokens / elapsed,
            "data_wait_fraction": wait_fraction,
        }

    def _advise(self, waiting: float | None) -> None:
        if waiting is None:
            return
        spare = max(1, self.cpu_count - 1)
        if self.workers < spare:
            setting, wanted = "dataloader_num_workers", f"dataloader_num_workers={spare}"
        else:
            setting, wanted = (
                "dataloader_prefetch_factor",
                "a larger dataloader_prefetch_factor, or packing=true",
            )
        self.ctx.advice(
            setting,
            f"{waiting:.0%} of each step is spent waiting for data ({self.workers} loader processes on "
            f"{self.cpu_count} cores); set {wanted}.",
            data_wait_fraction=waiting,
        )

    def _fail_if_diverged(self, loss: float, step: int) -> None:
        wrong = self._guard.add(loss)
        if wrong is not None:
            raise JobError(
                f"The loss {wrong} (step {step}); lower learning_rate or max_grad_norm, or use bf16 instead of fp16, "
                "and retry from an earlier checkpoint.",
                code="loss_diverged",
            )

    def on_prediction_step(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        self.ctx.advancing()

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_kwargs: Any,
    ) -> None:
        self._evaluated = {} if metrics is None else metrics  # callbacks after this one may add to it
        figures = {name: value for name, value in (metrics or {}).items() if name.startswith("eval_")}
        self.ctx.evaluation("eval", figures, step=state.global_step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        step = state.global_step
        written = Path(args.output_dir, f"checkpoint-{step}")
        trained_data.keep(written, self.data)
        published = self.ctx.checkpoint(written, step=step, metrics=self._metrics_of(state))
        if state.best_global_step == step:
            state.best_model_checkpoint = str(published)
        if self.save_total_limit is not None:
            best = state.best_model_checkpoint
            self.ctx.retain(Retention(last=self.save_total_limit), protected=[Path(best)] if best else [])

    def _metrics_of(self, state: TrainerState) -> dict[str, float | None]:
        """The figures of the step that is saved: its loss, and what was evaluated at it."""
        at_step = [log for log in state.log_history if log["step"] == state.global_step]
        evaluated = {
            name: value for log in at_step for name, value in log.items() if name.startswith("eval_")
        }
        if evaluated:
            evaluated |= {name: value for name, value in self._evaluated.items() if name.startswith("eval_")}
        figures = {name: _finite(value) for name, value in evaluated.items()}
        return {"eval_loss": None, **figures, "loss": self._latest.get("loss")}


def callbacks_of(
    ctx: WorkerContext,
    params: TrainingParams,
    settings: Resolved,
    meter: StepMeter,
    data: trained_data.Hashes,
    of_job: Iterable[TrainerCallback],
) -> list[TrainerCallback]:
    """The reporter, the job's own callbacks, and what ends a training early if it is to be ended."""
    reporter = Reporter(
        ctx,
        meter,
        workers=settings.dataloader_num_workers,
        cpu_count=len(os.sched_getaffinity(0)),
        save_total_limit=settings.save_total_limit,
        max_loss_ratio=params.loss_ratio_kept,
        data=data,
    )
    found = [reporter, *of_job]
    if params.early_stopping_patience is not None:
        found.append(ResumableEarlyStopping(params.early_stopping_patience))
    return found


class WaitWatch:
    """The share of time spent waiting over the last :data:`ADVICE_STEPS` reports, said once if it is too large."""

    def __init__(self) -> None:
        self._window: deque[tuple[float, float]] = deque(maxlen=ADVICE_STEPS)
        self._said = False

    def add(self, waited: float, elapsed: float) -> float | None:
        """Take one report's seconds; the share, the first time that it is too large."""
        self._window.append((waited, elapsed))
        total_waited, total = (sum(column) for column in zip(*self._window, strict=True))
        share = total_waited / total
        if self._said or len(self._window) < ADVICE_STEPS or total_waited < WORTH_SAYING:
            return None
        self._said = share > WAIT_TOO_LONG
        return share if self._said else None


class ResumableEarlyStopping(EarlyStoppingCallback):
    """Early stopping that goes on counting where the checkpoint left off."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        saved = state.stateful_callbacks.get(type(self).__name__, {})
        self.early_stopping_patience_counter = saved.get("attributes", {}).get(
            "early_stopping_patience_counter", 0
        )


def _checkpoint_at(directory: Path, step: int) -> str | None:
    """The checkpoint of that step below ``directory``, by its own trainer state, or ``None`` if it is gone."""
    for state_file in sorted(directory.glob("*/trainer_state.json")):
        if json.loads(state_file.read_text())["global_step"] == step:
            return str(state_file.parent)
    return None


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
