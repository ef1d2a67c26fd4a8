"""Names of models: their own, aliases such as ``support-bot@production``, and OpenAI's ``ft:`` names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from finetuned.domain.job import Job
from finetuned.domain.registers import Alias, Model

PREFIX = "ft:"
ORGANISATION = "finetuned"
CHECKPOINT: Final = re.compile(r"ft:.*:([^:]+):ckpt-step-(\d{1,15})")


def fine_tuned(model: Model) -> str | None:
    """``ft:<base>:<organisation>:<suffix>:<id>`` of a model that a job trained; ``None`` for others."""
    if model.job is None or model.base is None:
        return None
    return name_of(model.base, model.job, suffix_of(model.base, model.name, model.job))


def name_of(base: str, job_id: str, suffix: str) -> str:
    """The ``ft:`` name of what a job makes of the model ``base``."""
    return f"{PREFIX}{_last(base).replace(':', '-')}:{ORGANISATION}:{suffix}:{_identity(job_id)}"


def of_job(job: Job) -> str:
    """The ``ft:`` name of what a training makes, or will have made."""
    return name_of(job.params["model"], job.id, suffix_of_job(job))


def suffix_of_job(job: Job) -> str:
    """What somebody called the model that a training makes; nothing where nobody did."""
    name = job.params.get("output_name")
    return "" if name is None else suffix_of(job.params["model"], name, job.id)


def of_checkpoint(job: Job, step: int) -> str:
    """The ``ft:`` name of a training's checkpoint."""
    return f"{of_job(job)}:ckpt-step-{step}"


def checkpoint_in(name: str) -> tuple[str, int] | None:
    """The job and the step that a checkpoint's name has; ``None`` for names of other things."""
    found = CHECKPOINT.fullmatch(name)
    return None if found is None else (f"job-{found[1]}", int(found[2]))


def suffix_of(base: str, name: str, job_id: str) -> str:
    """What somebody called a model: its name, but for the job's id at its end; nothing where nobody did."""
    return "" if name == f"{_last(base)}-{job_id}" else name.removesuffix(f"-{_identity(job_id)}")


def suffixed(suffix: str, job_id: str) -> str:
    """The name to register a model under, so that the next one of the same suffix does not take it."""
    return f"{suffix}-{_identity(job_id)}"


def known(models: Mapping[str, Model], aliases: Mapping[str, Alias]) -> list[str]:
    """Every name that stands for a model."""
    trained = (name for model in models.values() if (name := fine_tuned(model)) is not None)
    return [*models, *aliases, *trained]


def find(name: str, models: Mapping[str, Model], aliases: Mapping[str, Alias]) -> Model | None:
    """The registered model that a name stands for; ``None`` if it stands for none."""
    alias = aliases.get(name)
    if alias is not None:
        name = alias.model
    if name in models:
        return models[name]
    if name.startswith(PREFIX):
        return next((model for model in models.values() if fine_tuned(model) == name), None)
    return None


def _last(base: str) -> str:
    return base.rstrip("/").rpartition("/")[2]


def _identity(job_id: str) -> str:
    return job_id.removeprefix("job-")
