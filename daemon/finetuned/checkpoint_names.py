"""Checkpoints of trainings by their names, ``ft:…:ckpt-step-88``: which of them are kept, and where."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from finetuned.domain import model_names
from finetuned.domain.job import Job
from finetuned.domain.world import World
from finetuned.openai.hyperparameters import KINDS
from finetuned.store import Log, job_from, queries


async def kept(log: Log, world: World, names: Iterable[str]) -> dict[str, tuple[Path, str]]:
    """Of the checkpoints among the names, and among what these lie over: the directory, and the model beneath."""
    found: dict[str, tuple[Path, str]] = {}
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        model = model_names.find(name, world.models, world.aliases)
        if model is not None:
            waiting += [model.base] if model.base is not None else []
        elif (place := await _kept(log, world, name)) is not None:
            found[name] = place
            waiting.append(place[1])
    return found


async def _kept(log: Log, world: World, name: str) -> tuple[Path, str] | None:
    wanted = model_names.checkpoint_in(name)
    if wanted is None:
        return None
    job_id, step = wanted
    job = world.jobs.get(job_id) or await _ended(log, job_id)
    # Only a training's parameters say what its checkpoints are called.
    if job is None or job.deleted or job.kind not in KINDS or model_names.of_checkpoint(job, step) != name:
        return None
    saved = [each for each in job.checkpoints if each["step"] == step]
    return (Path(saved[-1]["path"]), job.params["model"]) if saved else None


async def _ended(log: Log, job_id: str) -> Job | None:
    rows = await log.fetch(queries()["select_job"], (job_id,))
    return job_from(rows[0][0]) if rows else None
