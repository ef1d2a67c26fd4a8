"""What could be changed about a job so that it takes less memory, what its parameters come to, and how long it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import takewhile
from typing import Any

from finetuned_sdk import Host
from finetuned_training.estimate import settings_on
from finetuned_training.params import TrainingParams
from finetuned_training.row_lengths import lines
from finetuned_training.settings import total_steps

Changes = Mapping[str, Any]

SHORTEST = 128  # tokens: rows are not proposed to be cut below this
#: what decides how long a step takes, on one machine
SPEED_PARAMS = (
    "model",
    "method",
    "lora_r",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "sort_within_step",
    "max_length",
    "gradient_checkpointing",
    "adapter",
    "lora_target_modules",
)


def alternatives(params: TrainingParams, host: Host) -> Iterator[list[Changes]]:
    """Groups of changes, the least costly first: batches that sum up to the same, recomputing, adapters, cut rows.

    The effective batch is always the same, so the training is too but for the method and the length.
    """
    batches = list(smaller_batches(params))
    yield batches
    smallest: Changes = batches[-1] if batches else {}
    if not settings_on(params, host).gradient_checkpointing:
        yield [{"gradient_checkpointing": True}, {**smallest, "gradient_checkpointing": True}]
        smallest = {**smallest, "gradient_checkpointing": True}
    for method in cheaper_methods(params, gpu=host.has_gpu):
        yield [{"method": method}, {**smallest, "method": method}]
    halves = (params.max_length >> shift for shift in range(1, 32))
    lengths = list(takewhile(lambda length: length >= SHORTEST, halves))
    yield [{"max_length": length} for length in lengths]
    yield [{**smallest, "max_length": length} for length in lengths]


def smaller_batches(params: TrainingParams) -> Iterator[Changes]:
    """Smaller batches on the device with as many more passes, from the largest down. The trainer finds auto's itself."""
    for rows in [] if params.finds_batch else range(params.rows_a_pass - 1, 0, -1):
        if params.rows_a_step % rows == 0:
            yield {
                "per_device_train_batch_size": rows,
                "gradient_accumulation_steps": params.rows_a_step // rows,
            }


def cheaper_methods(params: TrainingParams, *, gpu: bool) -> list[str]:
    """Methods that take less memory than the job's. Four bits are for GPUs."""
    methods = ["full", "lora", *(["qlora"] if gpu else [])]
    return methods[methods.index(params.method) + 1 :] if params.method in methods else []


def effective(params: TrainingParams, host: Host) -> dict[str, Any]:
    """All parameters, with those that were left open as this host fills them in."""
    worked_out = asdict(settings_on(params, host))
    return {**params.model_dump(mode="json"), **worked_out}


def steps(params: TrainingParams, host: Host) -> int | None:
    """Optimizer steps, if they are named or the rows can be counted at a glance. Packed rows cannot."""
    if params.max_steps is not None:
        return params.max_steps
    found = None if params.packs else lines(host.dataset(params.dataset))
    if found is None or not found.count:
        return None
    return total_steps(params, max(1, round(found.count * (1 - params.eval_split))))
