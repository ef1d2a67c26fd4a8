"""Which bytes a job is trained on: hashed when it reads them, kept in its checkpoints, compared when it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from finetuned_sdk import JobError, WorkerContext
from finetuned_training import dataset
from finetuned_training.params import TrainingParams

FILE = "dataset.json"

Hashes = Mapping[str, str | None]  # by dataset; ``None`` for hub ids


def hashes(ctx: WorkerContext, params: TrainingParams) -> Hashes:
    """The SHA-256 of the job's datasets as they are now. Raises as :func:`sha256` does."""
    found = {params.dataset: sha256(ctx, "dataset", params.dataset_split)}
    if params.eval_dataset is not None:
        found[f"{params.eval_dataset} (held out)"] = sha256(ctx, "eval_dataset", "test")
    return found


def sha256(ctx: WorkerContext, param: str, split: str) -> str | None:
    """The SHA-256 of what a parameter names; ``None`` for a hub id.

    Raises ``JobError`` (``dataset_changed``) if the parameter refers to a dataset whose file has other content now.
    """
    path, version = ctx.dataset_path(param), ctx.dataset_version(param)
    digest = dataset.sha256(path, split)
    if version is not None and digest != version:
        raise JobError(
            f"{path} is no longer what the job was submitted with (its SHA-256 was {version}, it is {digest}); put it"
            " back as it was, or register it again and submit a new job.",
            code="dataset_changed",
        )
    return digest


def keep(checkpoint: Path, read: Hashes) -> None:
    """Write the hashes into a checkpoint."""
    Path(checkpoint, FILE).write_text(json.dumps(dict(read), indent=1), encoding="utf-8")


def require_same(now: Hashes, before: Hashes, when: str) -> None:
    """Raise ``JobError`` (``dataset_changed``) if a dataset of ``before`` has other bytes ``now``."""
    for name, digest in before.items():
        if name in now and now[name] != digest:
            raise JobError(
                f"The dataset {name} has changed {when} (its SHA-256 was {digest}, it is {now[name]}); put it back "
                "as it was and retry, or submit a new job for the new rows.",
                code="dataset_changed",
            )


def require_those_of(checkpoint: Path, now: Hashes) -> None:
    """Raise ``JobError`` (``dataset_changed``) if the checkpoint was trained on other bytes."""
    file = checkpoint / FILE
    if file.is_file():
        before: Hashes = json.loads(file.read_text(encoding="utf-8"))
        require_same(now, before, "since the checkpoint that the job goes on from")
