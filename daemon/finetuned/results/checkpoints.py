"""Checkpoints of a job as people name them: by step, as ``latest``, or by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetuned.domain.errors import NotFoundError
from finetuned.domain.job import Job
from finetuned_sdk import checkpoints

Json = Any

LATEST: Final = "latest"


@dataclass(frozen=True, slots=True)
class Found:
    """A whole checkpoint: where it lies and its step."""

    path: str
    step: int


def id_of(checkpoint: Mapping[str, Json]) -> str:
    """What names a checkpoint among those of all attempts: ``attempt/name``."""
    return f"{checkpoint['attempt']}/{Path(checkpoint['path']).name}"


def find(job: Job, wanted: str) -> Found:
    """The checkpoint that a step, ``latest`` or an id names, read through: its manifest holds. Blocks.

    Of several of one step the newest whole one counts. Raises ``NotFoundError``.
    """
    if not job.checkpoints:
        raise NotFoundError(
            f"Job {job.id} has no checkpoint; leave `from_checkpoint` out.", param="from_checkpoint"
        )
    named = [each for each in job.checkpoints if _is_named(job, each, wanted)]
    if not named:
        steps = ", ".join(str(each["step"]) for each in job.checkpoints)
        raise NotFoundError(
            f"Job {job.id} has no checkpoint {wanted!r}; it has {steps} (`finetune checkpoints {job.id}`).",
            param="from_checkpoint",
        )
    for each in sorted(named, key=lambda each: (each["step"], each["attempt"]), reverse=True):
        if checkpoints.newest_complete([Path(each["path"])]) is not None:
            return Found(each["path"], each["step"])
    raise NotFoundError(
        f"No checkpoint of job {job.id} that {wanted!r} names is complete any more (its files do not match their"
        f" manifest); name another (`finetune checkpoints {job.id}`), or none.",
        param="from_checkpoint",
    )


def _is_named(job: Job, checkpoint: Mapping[str, Json], wanted: str) -> bool:
    if wanted == LATEST:
        return bool(checkpoint["attempt"] >= job.rewound_at)
    return wanted in {str(checkpoint["step"]), id_of(checkpoint)}
