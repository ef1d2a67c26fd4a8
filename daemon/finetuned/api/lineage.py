"""Where a model comes from, and what makes sense next for a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetuned import lineage, next_steps, views, wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.domain.errors import NotFoundError
from finetuned.domain.job import Job
from finetuned.domain.registers import Model


async def of_model(call: Call, *, name: str) -> wire.Lineage:
    """What a model was made from, and what was made from it."""
    model = await call.queries.model(name)
    models = {each.name: each for each in await call.queries.models()}
    return {
        "object": "lineage",
        "model": await _model(call, model.name, model),
        "bases": [await _model(call, each.name, each.model) for each in lineage.bases(model, models)],
        "derived": [
            {
                "name": each.model.name,
                "kind": each.model.kind,
                "base": each.base,
                "job": each.model.job,
                "created_at": views.time(each.model.created_at),
            }
            for each in lineage.derived(model, models)
        ],
    }


async def next_of_job(call: Call, *, job_id: str) -> wire.Page[wire.NextStep]:
    """What makes sense next for a job."""
    shown = await call.queries.shown(job_id)
    steps: list[wire.NextStep] = [
        {"action": each.action, "why": each.why, "command": each.command}
        for each in next_steps.next_steps(shown.job, shown.wait)
    ]
    return listing(steps, key="action")


async def _model(call: Call, name: str, model: Model | None) -> wire.LineageModel:
    return {
        "name": name,
        "registered": model is not None,
        "kind": model.kind if model else None,
        "path": model.path if model else None,
        "base": model.base if model else None,
        "adapter": model.lineage.get("adapter") if model else None,
        "created_at": views.time(model.created_at) if model else None,
        "job": await _job(call, model) if model and model.job else None,
    }


async def _job(call: Call, model: Model) -> wire.LineageJob:
    assert model.job is not None
    try:
        job = await call.queries.job(model.job)
    except NotFoundError:
        job = None
    return {
        "id": model.job,
        "kind": job.kind if job else model.lineage.get("kind"),
        "state": job.state.value if job else None,
        "datasets": _datasets(job, model.lineage),
        "artifacts": [views.artifact(each) for each in job.artifacts] if job else [],
    }


def _datasets(job: Job | None, told: Mapping[str, Any]) -> list[wire.LineageDataset]:
    """The datasets that the job was given by name, or else what its worker says it read."""
    if job is not None and job.datasets:
        return [{"name": each["name"], "version": each["version"]} for each in job.datasets.values()]
    name, version = told.get("dataset"), told.get("dataset_sha256")
    if not isinstance(name, str):
        return []
    return [{"name": name, "version": version if isinstance(version, str) else None}]
