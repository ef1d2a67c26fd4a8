"""Lineage and next steps as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetuned import views, wire
from finetuned.domain.job import Job
from finetuned.domain.next_steps import Step
from finetuned.domain.registers import Model
from finetuned.queries.lineage import Ancestor, Lineage


def lineage(found: Lineage) -> wire.Lineage:
    """What a model was made from, and what was made from it."""
    return {
        "object": "lineage",
        "model": _model(found.model),
        "bases": [_model(each) for each in found.bases],
        "derived": [
            {
                "name": each.model.name,
                "kind": each.model.kind,
                "base": each.base,
                "job": each.model.job,
                "created_at": views.time(each.model.created_at),
            }
            for each in found.derived
        ],
    }


def next_step(each: Step) -> wire.NextStep:
    """What makes sense next."""
    return {"action": each.action, "why": each.why, "command": each.command}


def _model(found: Ancestor) -> wire.LineageModel:
    model = found.model
    return {
        "name": found.name,
        "registered": model is not None,
        "kind": model.kind if model else None,
        "path": model.path if model else None,
        "base": model.base if model else None,
        "adapter": model.lineage.get("adapter") if model else None,
        "created_at": views.time(model.created_at) if model else None,
        "job": _job(model.job, model, found.job) if model and model.job else None,
    }


def _job(job_id: str, model: Model, job: Job | None) -> wire.LineageJob:
    return {
        "id": job_id,
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
