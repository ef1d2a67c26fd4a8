"""Which bytes a job is trained on: hashed when it reads them, kept in its checkpoints, compared when it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from finetuned_sdk import JobError
from finetuned_sft import dataset
from finetuned_sft.params import SFTParams

FILE = "dataset.json"

Hashes = Mapping[str, str | None]  # by dataset; ``None`` for hub ids


def hashes(params: SFTParams) -> Hashes:
    """The SHA-256 of the job's datasets as they are now."""
    found = {params.dataset: dataset.sha256(params.dataset, params.dataset_split)}
    if params.eval_dataset is not None:
        found[f"{params.eval_dataset} (held out)"] = dataset.sha256(params.eval_dataset, "test")
    return found


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
