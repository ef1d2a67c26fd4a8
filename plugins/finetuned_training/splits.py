"""What a training reads: its rows, those that are held out, and the bytes that both are of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetuned_sdk import WorkerContext, phases
from finetuned_training import trained_data
from finetuned_training.params import TrainingParams

if TYPE_CHECKING:
    import datasets

Load = Callable[[str, str], "datasets.Dataset"]
"""From the parameter that names a dataset, and the split to read of it, to its rows as the trainer takes them."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The rows to train on, those that are held out if there are any, and the hashes of what they were read from."""

    train: datasets.Dataset
    held_out: datasets.Dataset | None
    hashes: trained_data.Hashes


def read(ctx: WorkerContext, params: TrainingParams, load: Load) -> Splits:
    """Both, by ``load``.

    Raises ``JobError`` (``dataset_changed``) if the data are not those of the checkpoint that the job goes on from, or
    changed while they were read; and what ``load`` raises.
    """
    ctx.phase(phases.PREPARING_DATA)
    hashes = trained_data.hashes(ctx, params)
    if ctx.resume_from is not None:
        trained_data.require_those_of(ctx.resume_from, hashes)
    train, held_out = load("dataset", params.dataset_split), None
    if params.eval_dataset is not None:
        held_out = load("eval_dataset", "test")
    elif params.eval_split > 0:
        parts = train.train_test_split(test_size=params.eval_split, seed=params.seed)
        train, held_out = parts["train"], parts["test"]
    trained_data.require_same(trained_data.hashes(ctx, params), hashes, "while it was read")
    return Splits(train, held_out, hashes)
