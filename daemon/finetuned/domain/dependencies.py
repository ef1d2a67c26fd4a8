"""Files of one job that another needs: they are not removed under it, and it is not accepted without them."""

from __future__ import annotations

from finetuned.domain import facts
from finetuned.domain.errors import FilesRemovedError, Rejected
from finetuned.domain.job import Job
from finetuned.domain.world import World


def require_free(world: World, job_id: str) -> None:
    """Reject the removal of a job's files while a live job, a registered model or a dataset needs them."""
    for live in world.live_jobs():
        if live.retry_of == job_id and live.resume_from:
            raise Rejected(
                "job_in_use", f"A live retry of job {job_id} goes on from its checkpoint; wait for that one."
            )
        if any(_is_of(path, job_id) for path in (*live.models.values(), live.resume_from or "")):
            raise Rejected(
                "job_in_use",
                f"The live job {live.id} is made from the files of job {job_id}; wait for it, or cancel it"
                f" (`finetune cancel {live.id}`).",
            )
    for name, dataset in world.datasets.items():
        if any(_is_of(version.path, job_id) for version in dataset.versions):
            raise Rejected(
                "dataset_in_use",
                f"The dataset {name} is a file of job {job_id}; first `finetune datasets rm {name}`.",
            )
    models = [
        model.name for model in world.models.values() if model.job == job_id or _is_of(model.path, job_id)
    ]
    if models:
        remedy = " and ".join(f"`finetune models rm {name}`" for name in models)
        raise Rejected(
            "model_in_use", f"The files of job {job_id} are those of a registered model; first {remedy}."
        )


def needed(world: World) -> frozenset[str]:
    """The ids of all jobs that :func:`require_free` rejects, in one look at the world; other names are among them."""
    names: set[str] = set()
    for live in world.live_jobs():
        if live.retry_of is not None and live.resume_from:
            names.add(live.retry_of)
        for path in (*live.models.values(), live.resume_from or ""):
            names.update(path.split("/"))
    for dataset in world.datasets.values():
        for version in dataset.versions:
            names.update(version.path.split("/"))
    for model in world.models.values():
        names.update(model.path.split("/"))
        if model.job is not None:
            names.add(model.job)
    return frozenset(names)


def require(world: World, fact: facts.JobSubmitted) -> None:
    """Reject a job that needs what went since its request was read: a model, or the job whose checkpoint it takes.

    Raises ``NotFoundError`` for that job, and ``FilesRemovedError`` if its files were removed.
    """
    paths = {model.path for model in world.models.values()}
    for param, path in fact.models.items():
        if path not in paths:
            raise Rejected(
                "model_gone",
                "The model that the job names has just been removed; name another (`finetune models` lists them).",
                param=f"params.{param}",
            )
    if fact.retry_of is not None and fact.resume_from is not None:
        require_files(world.job(fact.retry_of))


def require_files(job: Job) -> None:
    """Raise ``FilesRemovedError`` if the job's files were removed."""
    gone = job.files_removed
    if gone is not None:
        raise FilesRemovedError(
            f"The files of job {job.id} were removed: {gone['reason']}. Its events are there (`finetune show {job.id}`);"
            f" `finetune retry {job.id}` makes such files again."
        )


def _is_of(path: str, job_id: str) -> bool:
    """Whether a path lies in the directory of a job: it has the job's id for its name."""
    return f"/{job_id}/" in f"/{path}/"
