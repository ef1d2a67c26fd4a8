"""The same training in less memory: fewer rows a pass, as many more passes. Pure; the daemon calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetuned_training.params import TrainingParams


def reduce_memory(params: TrainingParams) -> Mapping[str, Any] | None:
    """Parameters to change after memory ran out; ``None`` if no pass can be made smaller.

    The batch is divided by its smallest prime factor (an even one is halved) and the accumulation multiplied by it, so
    that each optimizer step sees the very same rows, in the same order, as before: an odd batch cannot be halved, and
    rounding it would change the training. A step's gradient is summed over its tokens, so losses are equal too, but
    for rounding and for dropout, whose draws depend on the shape of a batch. An evaluation batch that was set is
    halved as well, since memory may have run out there; one that was not follows the training's. A batch that the
    trainer finds by itself is not known here, so the trainer is told to take half of what it found.
    """
    changes: dict[str, Any] = {}
    batch = params.rows_a_pass
    if params.finds_batch:
        if params.auto_batch_divisor < params.rows_a_step:
            changes["auto_batch_divisor"] = 2 * params.auto_batch_divisor
    elif batch > 1:
        factor = smallest_factor(batch)
        changes["per_device_train_batch_size"] = batch // factor
        changes["gradient_accumulation_steps"] = params.gradient_accumulation_steps * factor
    if params.per_device_eval_batch_size is not None and params.per_device_eval_batch_size > 1:
        changes["per_device_eval_batch_size"] = params.per_device_eval_batch_size // 2
    return changes or None


def smallest_factor(number: int) -> int:
    """The smallest prime factor of a number above 1."""
    return next((factor for factor in range(2, int(number**0.5) + 1) if number % factor == 0), number)
