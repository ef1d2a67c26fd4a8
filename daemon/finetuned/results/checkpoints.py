"""Checkpoints of a job as people name them, by step, as ``latest`` or by id; and what their files are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from finetuned.domain import dependencies
from finetuned.domain.errors import NotFoundError
from finetuned.domain.job import Job
from finetuned.looking import Check, always
from finetuned_sdk import checkpoints, manifest
from finetuned_sdk.manifest import ManifestError

Json = Any

Validity = Literal["complete", "whole", "damaged"]

LATEST: Final = "latest"
READ_BYTES: Final = 64 << 30  # of checkpoints that one look reads through


@dataclass(frozen=True, slots=True)
class Found:
    """A whole checkpoint: where it lies and its step."""

    path: str
    step: int


@dataclass(frozen=True, slots=True)
class Looked:
    """A checkpoint as its files are now.

    ``validity`` is ``whole`` if every byte was read and holds, ``complete`` if manifest and sizes do, else ``damaged``,
    and ``problem`` says how. ``resumes`` marks the one that the job would go on from.
    """

    checkpoint: Mapping[str, Json]
    validity: Validity
    problem: str | None
    resumes: bool


def look(job: Job, *, verify: bool, check: Check = always) -> list[Looked]:
    """The job's checkpoints in the order of the log, as their files are now. Blocks.

    With ``verify`` they are read through, the newest first, ``READ_BYTES`` at most. Raises what ``check`` raises.
    """
    left = READ_BYTES if verify else 0
    found: dict[str, Looked] = {}
    resumes: str | None = None
    for each in newest_first(job.checkpoints):
        check()
        reads = verify and each["bytes"] <= left
        left -= each["bytes"] if reads else 0
        problem = _problem(Path(each["path"]), reads=reads, check=check)
        if resumes is None and problem is None and each["attempt"] >= job.rewound_at:
            resumes = each["path"]
        sound: Validity = "whole" if reads else "complete"
        validity: Validity = sound if problem is None else "damaged"
        found[each["path"]] = Looked(each, validity, problem, each["path"] == resumes)
    return [found[each["path"]] for each in job.checkpoints]


def newest_first(listed: Iterable[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Checkpoints by step; of those of one step the newest attempt's first."""
    return sorted(listed, key=lambda each: (each["step"], each["attempt"]), reverse=True)


def _problem(path: Path, *, reads: bool, check: Check) -> str | None:
    try:
        manifest.verify(path, checksums=reads, check=check)
    except ManifestError as error:
        return error.message
    return None


def id_of(checkpoint: Mapping[str, Json]) -> str:
    """What names a checkpoint among those of all attempts: ``attempt/name``."""
    return f"{checkpoint['attempt']}/{Path(checkpoint['path']).name}"


def find(job: Job, wanted: str) -> Found:
    """The checkpoint that a step, ``latest`` or an id names, read through: its manifest holds. Blocks.

    Of several of one step the newest whole one counts. Raises ``NotFoundError`` or ``FilesRemovedError``.
    """
    dependencies.require_files(job)
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
    for each in newest_first(named):
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
