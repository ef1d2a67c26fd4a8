"""Files of one job that another needs: they are not removed under it, and it is not accepted without them."""

from __future__ import annotations

from collections.abc import Iterator

from finetuned.domain import facts, model_names
from finetuned.domain.errors import FilesRemovedError, Rejected
from finetuned.domain.job import Job
from finetuned.domain.registers import Model
from finetuned.domain.world import World


def require_free(world: World, job_id: str) -> None:
    """Reject the removal of a job's files while a live job, a registered model or a dataset needs them."""
    for live in world.live_jobs():
        if live.retry_of == job_id and live.resume_from:
            raise Rejected(
                "job_in_use", f"A live retry of job {job_id} goes on from its checkpoint; wait for that one."
            )
        if any(_is_of(path, job_id) for path in _paths(live)):
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
    files = [file.id for file in world.files.values() if file.job == job_id]
    if files:
        remedy = " and ".join(f"`finetune files rm {each}`" for each in files)
        raise Rejected("file_in_use", f"Job {job_id} made files that can be named; first {remedy}.")
    models = [
        model.name
        for model in world.models.values()
        if job_id in {model.job, _beneath(model)} or _is_of(model.path, job_id)
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
        for path in _paths(live):
            names.update(path.split("/"))
    for dataset in world.datasets.values():
        for version in dataset.versions:
            names.update(version.path.split("/"))
    names.update(file.job for file in world.files.values() if file.job is not None)
    for model in world.models.values():
        names.update(model.path.split("/"))
        names.update(each for each in (model.job, _beneath(model)) if each is not None)
    return frozenset(names)


def require(world: World, fact: facts.JobSubmitted) -> None:
    """Reject a job that needs what went since its request was read: a model, or the job whose checkpoint it takes.

    Raises ``NotFoundError`` for that job, and ``FilesRemovedError`` if its files were removed.
    """
    paths = {model.path for model in world.models.values()}
    for param, path in fact.models.items():
        if path not in paths and not _is_kept(world, path):
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


def _paths(live: Job) -> Iterator[str]:
    """What a live job reads that another may have made."""
    yield from live.models.values()
    yield live.resume_from or ""
    yield from (each["path"] for each in live.datasets.values())
    if live.engine is not None:
        yield live.engine["params"]["model"]
        yield (live.engine["adapter"] or {}).get("path", "")
    if live.serves is not None:
        yield live.params["model"]


def _beneath(model: Model) -> str | None:
    """The job whose checkpoint an adapter lies over, if it lies over one."""
    found = model_names.checkpoint_in(model.base or "") if model.kind == "adapter" else None
    return None if found is None else found[0]


def _is_kept(world: World, path: str) -> bool:
    """Whether a path is that of a checkpoint which is kept."""
    for job_id in {each for each in path.split("/") if each.startswith("job-")}:
        job = world.jobs.get(job_id) or world.lookup(job_id)
        if job is None or job.deleted or job.files_removed is not None:
            continue
        if any(each["path"] == path for each in job.checkpoints):
            return True
    return False


def _is_of(path: str, job_id: str) -> bool:
    """Whether a path lies in the directory of a job: it has the job's id for its name."""
    return f"/{job_id}/" in f"/{path}/"
