"""What the parameters of an SFT job mean for one method on one device: the defaults that are worked out.

Intervals and numbers of steps are here too, because transformers takes shares of a run where the user may give steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetuned_training.params import TrainingParams

ALL_LINEAR = "all-linear"  # peft's word for every linear layer but the head
SAVE_EVERY_AT_MOST = 500  # steps; a crash costs no more than these


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What the ``None`` defaults of :class:`TrainingParams` mean for one method on one device."""

    learning_rate: float
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    lora_target_modules: str | list[str]
    optim: str
    bf16: bool
    fp16: bool
    gradient_checkpointing: bool
    eval_steps: float
    save_steps: float
    save_total_limit: int | None
    load_best_model_at_end: bool
    per_device_eval_batch_size: int
    dataloader_num_workers: int
    dataloader_prefetch_factor: int | None


def resolve(params: TrainingParams, *, cpu_count: int, gpu: bool, bf16_supported: bool) -> Resolved:
    """Fill in what the user left open.

    Sources: LoRA's learning rate, rank and "every linear layer" from "LoRA Without Regret" (Thinking Machines,
    2025) and the QLoRA paper (arXiv 2305.14314: 2e-4, dropout 0.05, paged 8-bit Adam); full tuning's 2e-5 is
    TRL's own. Cores beyond the one that computes make batches, in at most four processes. Padding tokenized rows
    took 1.5 ms a batch on two cores, so one process is enough there and none would do as well; it stays one so
    that a slow disk or a busy core is not felt by the device.
    """
    lora_r = params.lora_r or 16
    workers = params.dataloader_num_workers
    if workers is None:
        workers = max(1, min(4, cpu_count - 1))
    best = bool(params.load_best_model_at_end or params.early_stopping_patience)
    eval_steps = params.eval_steps or (0.1 if params.early_stopping_patience else 0.25)
    keeps_best_itself = any(callback.name == "checkpoint" for callback in params.callbacks)
    bf16 = gpu and bf16_supported and not params.fp16 if params.bf16 is None else params.bf16
    fp16 = gpu and not bf16_supported and params.bf16 is None if params.fp16 is None else params.fp16

    return Resolved(
        learning_rate=params.learning_rate or params.learning_rates[params.method != "full"],
        lora_r=lora_r,
        lora_alpha=params.lora_alpha or 2 * lora_r,
        lora_dropout=0.05 if params.lora_dropout is None else params.lora_dropout,
        lora_target_modules=params.lora_target_modules or ALL_LINEAR,
        optim=params.optim
        or ("paged_adamw_8bit" if params.method == "qlora" and gpu else "adamw_torch_fused"),
        bf16=bf16,
        fp16=fp16,
        gradient_checkpointing=gpu
        if params.gradient_checkpointing is None
        else params.gradient_checkpointing,
        eval_steps=eval_steps,
        # The best checkpoint can only be gone back to if it was saved when it was evaluated.
        save_steps=eval_steps if best else params.save_steps or 0.1,
        save_total_limit=params.save_total_limit or (None if keeps_best_itself else 2),
        load_best_model_at_end=best,
        per_device_eval_batch_size=params.per_device_eval_batch_size or params.rows_a_pass,
        dataloader_num_workers=workers,
        dataloader_prefetch_factor=(params.dataloader_prefetch_factor or 4) if workers else None,
    )


def total_steps(params: TrainingParams, rows: int) -> int:
    """Optimizer steps of the whole run over ``rows`` rows (packed: sequences), counted as transformers does."""
    if params.max_steps is not None:
        return params.max_steps
    batches = math.ceil(rows / params.rows_a_pass)
    return math.ceil(params.num_train_epochs * math.ceil(batches / params.gradient_accumulation_steps))


def every(steps: float, total: int) -> int:
    """An interval in whole steps: below 1 it is a share of all steps."""
    return max(1, math.ceil(steps * total) if steps < 1 else int(steps))


def intervals(params: TrainingParams, settings: Resolved, total: int) -> tuple[int, int]:
    """Steps between evaluations and between checkpoints in a run of ``total`` steps.

    Checkpoints that the user did not space are no more than :data:`SAVE_EVERY_AT_MOST` steps apart; where the best
    one is wanted, evaluations move with them.
    """
    evaluate, save = every(settings.eval_steps, total), every(settings.save_steps, total)
    if not settings.load_best_model_at_end:
        return evaluate, save if params.save_steps is not None else min(save, SAVE_EVERY_AT_MOST)
    if params.eval_steps is None and params.save_steps is None:
        save = min(save, SAVE_EVERY_AT_MOST)
    return save, save
