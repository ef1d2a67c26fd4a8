"""How a job looks to OpenAI's clients: a fine-tuning job, and its checkpoints. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import orjson

from finetuned import wire
from finetuned.datasets.references import FILE_SCHEME
from finetuned.domain import files, model_names
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.waits import Wait
from finetuned.openai import fine_tuning_ids, hyperparameters
from finetuned.openai.hyperparameters import BY_KIND, Method

Json = Any

RESULTS: Final = "fine-tune-results"  # the purpose of the file with a training's figures
DEFAULT_SEED: Final = 42  # of the trainers
TRACKER: Final = "tracker"  # the callback that reports to a tracker
SECOND: Final = 1_000_000  # in microseconds

STATUSES: Final[Mapping[JobState, wire.FineTuningStatus]] = {
    JobState.VALIDATING: "validating_files",
    JobState.QUEUED: "queued",
    JobState.STARTING: "running",
    JobState.RUNNING: "running",
    JobState.PAUSING: "pausing",
    JobState.PAUSED: "paused",
    JobState.CANCELLING: "cancelled",  # nothing else can become of it; OpenAI knows no state between
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


def job(each: Job, wait: Wait | None) -> wire.FineTuningJob:
    """A job of the kind sft, dpo or opd."""
    method = BY_KIND[each.kind]
    trained = hyperparameters.shown(method, each.params)
    succeeded = each.state is JobState.SUCCEEDED
    made = succeeded and (each.result or {}).get("model") is not None  # not by one that only tried batches
    return {
        "id": fine_tuning_ids.of_job(each.id),
        "object": "fine_tuning.job",
        "model": each.params.get("adapter") or each.params["model"],
        "created_at": each.created_at // SECOND,
        "finished_at": None if each.finished_at is None else each.finished_at // SECOND,
        "fine_tuned_model": model_names.of_job(each) if made else None,
        "organization_id": model_names.ORGANISATION,
        "result_files": _result_files(each),
        "status": STATUSES[each.state],
        "training_file": file_of(each.params["dataset"]),
        "validation_file": file_of(each.params.get("eval_dataset")),
        "trained_tokens": _trained_tokens(each) if succeeded else None,
        "hyperparameters": _supervised(trained) if method.name == "supervised" else None,
        "method": _method(method, trained, each.params),
        "error": _error(each),
        "seed": each.params.get("seed", DEFAULT_SEED),
        "estimated_finish": _estimated_finish(each),
        "integrations": _integrations(each.params),
        "metadata": {key: _text(value) for key, value in each.metadata.items()},
        "user_provided_suffix": model_names.suffix_of_job(each) or None,
        "usage_metrics": None,
        "shared_with_openai": False,
        "x_finetuned": {
            "job": each.id,
            "state": each.state.value,
            "phase": each.phase,
            "priority": each.priority,
            "attempt": 0 if each.attempt is None else each.attempt.number,
            "max_attempts": each.max_attempts,
            "wait_reason": wait.reason if wait else None,
            "queue_position": wait.position if wait else None,
            "pause_reason": each.pause_reason,
            "cancel_reason": each.cancel_reason,
            "progress": each.progress,
        },
    }


def checkpoint(each: Job, kept: Mapping[str, Json]) -> wire.FineTuningCheckpoint:
    """A checkpoint of a job that is kept."""
    return {
        "id": fine_tuning_ids.of_checkpoint(each.id, kept),
        "object": "fine_tuning.job.checkpoint",
        "created_at": kept["at"] // SECOND,
        "fine_tuned_model_checkpoint": model_names.of_checkpoint(each, kept["step"]),
        "fine_tuning_job_id": fine_tuning_ids.of_job(each.id),
        "metrics": metrics(kept["step"], kept["metrics"]),
        "step_number": kept["step"],
    }


def metrics(step: int, figures: Mapping[str, Json]) -> wire.FineTuningMetrics:
    """Figures under OpenAI's names. All held-out rows are evaluated, so both names of them have the same figure."""
    named = {
        "train_loss": figures.get("loss"),
        "train_mean_token_accuracy": figures.get("mean_token_accuracy"),
        "valid_loss": figures.get("eval_loss"),
        "valid_mean_token_accuracy": figures.get("eval_mean_token_accuracy"),
        "full_valid_loss": figures.get("eval_loss"),
        "full_valid_mean_token_accuracy": figures.get("eval_mean_token_accuracy"),
    }
    known = {name: value for name, value in named.items() if value is not None}
    return cast("wire.FineTuningMetrics", {"step": step, **known})


def file_of(reference: Any) -> Any:
    """The id of the file that a trainer's parameter refers to; whatever else it names as it stands."""
    return reference.removeprefix(FILE_SCHEME) if isinstance(reference, str) else reference


def _result_files(each: Job) -> list[str]:
    if each.is_live:
        return []
    kind = f"{files.MADE}{RESULTS}"
    names = dict.fromkeys(made["name"] for made in each.artifacts if made["kind"] == kind)
    return [files.made_id(each.id, name) for name in names]


def _supervised(trained: Mapping[str, Json]) -> wire.FineTuningHyperparameters:
    return cast("wire.FineTuningHyperparameters", dict(trained))


def _method(method: Method, trained: Mapping[str, Json], params: Mapping[str, Json]) -> wire.FineTuningMethod:
    told: dict[str, Json] = {"hyperparameters": dict(trained)}
    if method.name == "distillation":
        adapter, model = params.get("teacher_adapter"), params.get("teacher")
        told["teacher"] = adapter or model or params.get("teacher_endpoint")
    return cast("wire.FineTuningMethod", {"type": method.name, method.name: told})


def _error(each: Job) -> wire.FineTuningError | None:
    if each.error is None:
        return None
    code = each.error["code"]
    param = "training_file" if "dataset" in code or code.startswith("file_") else None
    return {"code": code, "message": each.error["message"], "param": param}


def _trained_tokens(each: Job) -> int | None:
    tokens = (each.progress or {}).get("num_tokens")
    return None if tokens is None else int(tokens)


def _estimated_finish(each: Job) -> int | None:
    left = (each.progress or {}).get("eta_seconds")
    if each.state is not JobState.RUNNING or left is None:
        return None
    finish: int = each.updated_at // SECOND + round(left)
    return finish


def _integrations(params: Mapping[str, Json]) -> list[dict[str, Json]]:
    plain: list[dict[str, Json]] = [{"type": name} for name in params.get("report_to") or []]
    told = [each["params"] for each in params.get("callbacks") or [] if each["name"] == TRACKER]
    return [*map(_tracker, told), *plain]


def _tracker(params: Mapping[str, Json]) -> dict[str, Json]:
    settings = {name: value for name, value in params.items() if name != "report_to"}
    settings["name"] = settings.pop("run_name", None)
    return {"type": params["report_to"], params["report_to"]: {"project": None, **settings}}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
