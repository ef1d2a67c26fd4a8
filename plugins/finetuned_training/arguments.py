"""The arguments of transformers' trainer that all our trainings set alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetuned_training.params import TrainingParams
from finetuned_training.settings import Resolved


def of_training(
    output_dir: Path, run_name: str, params: TrainingParams, settings: Resolved, *, gpu: bool
) -> dict[str, Any]:
    """Keywords for ``TrainingArguments`` and TRL's classes below it. What is not in them is TRL's default."""
    return {
        "output_dir": str(output_dir),
        "run_name": run_name,
        "seed": params.seed,
        # Training
        "max_steps": params.max_steps or -1,
        "num_train_epochs": params.num_train_epochs,
        "per_device_train_batch_size": params.rows_a_pass,
        "per_device_eval_batch_size": settings.per_device_eval_batch_size,
        "gradient_accumulation_steps": params.gradient_accumulation_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": params.lr_scheduler_type,
        "warmup_steps": params.warmup_steps,
        "weight_decay": params.weight_decay,
        "max_grad_norm": params.max_grad_norm,
        "optim": settings.optim,
        # Device
        "use_cpu": not gpu,
        "bf16": settings.bf16,
        "fp16": settings.fp16,
        "activation_checkpointing": settings.gradient_checkpointing,
        # Data loading
        "dataloader_num_workers": settings.dataloader_num_workers,
        "dataloader_prefetch_factor": settings.dataloader_prefetch_factor,
        # Loader processes that persist would draw no seed at an epoch's start, as a resumed run has to: the two
        # would part there.
        "dataloader_persistent_workers": False,
        "dataloader_pin_memory": gpu,
        # Evaluation, saving, logging: the intervals are set in whole steps once their number is known.
        "eval_strategy": "steps" if params.evaluates else "no",
        "eval_steps": settings.eval_steps if params.evaluates else None,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "load_best_model_at_end": settings.load_best_model_at_end,
        "metric_for_best_model": "eval_loss" if params.evaluates else None,
        "greater_is_better": False if params.evaluates else None,
        "logging_steps": params.logging_steps,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": params.report_to or "none",
    }
