"""The batch of a job that says ``auto``: found once, told, kept in its checkpoints and for other jobs like it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.trainer import TRAINER_STATE_NAME

from finetuned_sdk import WorkerContext
from finetuned_training import batch_probe, batch_search
from finetuned_training.batch_search import Tried
from finetuned_training.metering import BATCH, MeteredTrainer
from finetuned_training.params import TrainingParams
from finetuned_training.token_lengths import token_lengths

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

FINDING = "finding_batch"
#: what decides neither how fast a batch is nor what it takes
IRRELEVANT = frozenset(
    {
        "adapter", "callbacks", "dataset", "dataset_format", "dataset_split", "early_stopping_patience", "eval_dataset",
        "eval_split", "eval_steps", "learning_rate", "load_best_model_at_end", "logging_steps", "lr_scheduler_type",
        "max_grad_norm", "max_loss_ratio", "max_steps", "merge_adapter", "num_train_epochs", "output_name", "report_to",
        "save_steps", "save_total_limit", "seed", "tune_only", "warmup_steps", "weight_decay",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A number of rows a pass, what the divisor was then, and how much the process took at most."""

    batch: int
    divisor: int
    peak_bytes: int | None = None


def settle(ctx: WorkerContext, params: TrainingParams, trainer: MeteredTrainer) -> None:
    """Give a trainer that has not begun the batch that it trains with, where the job leaves it to us.

    What a checkpoint was written with counts before all else, then what was found for jobs like this one; otherwise, and
    always with ``tune_only``, it is found now. What it is, and what was tried, becomes part of the job's result.
    """
    if not params.finds_batch:
        return
    found = None if ctx.resume_from is None else of_checkpoint(ctx.resume_from)
    if found is None:
        lengths = token_lengths(trainer.train_dataset)
        file = ctx.cache_dir / "batch-shapes" / f"{key_of(params, trainer, lengths)}.json"
        found = None if params.tune_only else kept(file, batch_probe.limit_bytes(trainer))
        if found is None:
            found = find(ctx, params, trainer, lengths)
            keep(file, found)
    rows = params.rows_a_step
    batch = batch_search.largest_divisor(rows, found.batch * found.divisor / params.auto_batch_divisor)
    trainer.take_batch(batch, rows // batch, params.per_device_eval_batch_size or batch)
    trainer.found_batch = asdict(Found(batch, params.auto_batch_divisor, found.peak_bytes))
    ctx.result(per_device_train_batch_size=batch, gradient_accumulation_steps=rows // batch)


def find(
    ctx: WorkerContext, params: TrainingParams, trainer: MeteredTrainer, lengths: NDArray[np.int32]
) -> Found:
    """Try batches, tell what came of each, and say which is the fastest that fits; 1 if none does."""
    ctx.phase(FINDING)
    rows = params.rows_a_step
    at_most = min(rows // params.auto_batch_divisor, len(lengths))
    floor = batch_probe.peak_bytes(trainer.args.device) or 0
    tried: list[Tried] = []
    with batch_probe.untouched(trainer):
        limit = batch_probe.limit_bytes(trainer)
        prober = batch_probe.Prober(trainer, lengths, rows)
        for each in batch_search.search(prober, batch_search.candidates(rows, at_most), limit, floor):
            tried.append(each)
            logger.info("tried a batch: %s", each)
            if ctx.stop_requested is not None:
                break
    taken = batch_search.best(tried) or Tried(batch=1, fits=True)
    ctx.result(batches_tried=[told(each, rows) for each in tried])
    ctx.advice(
        "per_device_train_batch_size",
        f"The fastest batch that fits here is {taken.batch} rows a pass, {rows // taken.batch} passes a step "
        f"({taken.rows_per_second:.3g} rows/s); set per_device_train_batch_size={taken.batch} and "
        f"gradient_accumulation_steps={rows // taken.batch} to keep it.",
        rows_per_second=taken.rows_per_second,
    )
    return Found(taken.batch, params.auto_batch_divisor, taken.peak_bytes)


def told(tried: Tried, rows_a_step: int) -> dict[str, Any]:
    """One trial as the job's result has it."""
    return {**asdict(tried), "accumulation": rows_a_step // tried.batch}


def of_checkpoint(checkpoint: Path) -> Found | None:
    """What a checkpoint was written with; ``None`` if its job did not leave it to us."""
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    return _found(state.get("stateful_callbacks", {}).get(BATCH, {}).get("attributes"))


def kept(file: Path, limit_bytes: int | None) -> Found | None:
    """What was found before, if it is there and what it took is to be had."""
    try:
        found = _found(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    if found is None or (limit_bytes is not None and (found.peak_bytes or 0) > limit_bytes):
        return None
    return found


def keep(file: Path, found: Found) -> None:
    """Write what was found, whole or not at all. A full disk keeps nothing."""
    written = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(asdict(found)), encoding="utf-8")
        written.replace(file)
    except OSError as error:
        logger.warning("the batch that was found is not kept: %s", error)
        written.unlink(missing_ok=True)


def key_of(params: TrainingParams, trainer: MeteredTrainer, lengths: NDArray[np.int32]) -> str:
    """The hash of what decides which batch is the fastest: method and model, the rows' lengths, the machine."""
    device: torch.device = trainer.args.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    decides = {
        "trainer": type(trainer).__name__,
        "params": params.model_dump(mode="json", exclude=set(IRRELEVANT)),
        "adapter": params.adapter is not None,
        "machine": [platform.machine(), platform.processor(), gpu, torch.get_num_threads(), os.cpu_count()],
        "torch": torch.__version__,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    digest.update(lengths.tobytes())
    return digest.hexdigest()


def _found(about: Mapping[str, Any] | None) -> Found | None:
    if not isinstance(about, Mapping) or not isinstance(about.get("batch"), int):
        return None
    return Found(about["batch"], int(about.get("divisor", 1)), about.get("peak_bytes"))
