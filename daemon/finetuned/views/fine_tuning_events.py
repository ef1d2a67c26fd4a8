"""How the events of a job look to OpenAI's clients: a sentence each, and figures where there are some. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from finetuned import wire
from finetuned.domain import facts, model_names
from finetuned.domain.job import Job
from finetuned.openai import fine_tuning_ids
from finetuned.views import fine_tuning
from finetuned_events import Event

Json = Any
Level = Literal["info", "warn", "error"]
Told = tuple[Level, str]

VALID: Final = "its data are valid"  # why a job is queued after its validation


def event(job: Job, each: Event) -> wire.FineTuningEvent:
    """An event of one of the types in ``TYPES``."""
    level, message = _SENTENCES[each.type](job, each.data)
    figures = _figures(each)
    return {
        "id": fine_tuning_ids.of_event(each.seq),
        "object": "fine_tuning.job.event",
        "created_at": each.at // fine_tuning.SECOND,
        "level": level,
        "message": message,
        "type": "message" if figures is None else "metrics",
        "data": figures or {},
    }


def _figures(each: Event) -> dict[str, Json] | None:
    match each.type:
        case facts.JobProgress.type:
            step, data = each.data["current_step"], each.data
        case facts.EvaluationRecorded.type:
            step, data = each.data["step"] or 0, each.data["metrics"]
        case _:
            return None
    numbers = {name: value for name, value in data.items() if isinstance(value, int | float)}
    return {**numbers, **fine_tuning.metrics(step, data)}


def _submitted(job: Job, _data: Mapping[str, Json]) -> Told:
    return "info", f"Created fine-tuning job: {fine_tuning_ids.of_job(job.id)}"


def _started(job: Job, data: Mapping[str, Json]) -> Told:
    attempt = next((each for each in job.attempts if each.number == data["attempt"]), None)
    if attempt is not None and attempt.purpose == "validate":
        return "info", f"Validating training file: {fine_tuning.file_of(job.params['dataset'])}"
    if attempt is None or attempt.number <= 1:
        return "info", "Fine-tuning job started"
    origin = "the beginning" if attempt.resume_from is None else "its newest checkpoint"
    return "info", f"Fine-tuning job goes on from {origin} (attempt {attempt.number})"


def _queued(_job: Job, data: Mapping[str, Json]) -> Told:
    if data["reason"] == VALID:
        return "info", "Files validated, moving job to queued state"
    failed = data["reason"].startswith("attempt ")
    return "warn" if failed else "info", f"Job is queued: {data['reason']}"


def _progress(_job: Job, data: Mapping[str, Json]) -> Told:
    total, loss = data.get("total_steps"), data.get("loss")
    of_all = "" if total is None else f"/{total}"
    return "info", f"Step {data['current_step']}{of_all}" + (
        "" if loss is None else f": training loss={loss:.4g}"
    )


def _evaluated(_job: Job, data: Mapping[str, Json]) -> Told:
    loss = data["metrics"].get("eval_loss")
    at = "" if data["step"] is None else f" at step {data['step']}"
    return "info", f"Validated{at}" + ("" if loss is None else f": full validation loss={loss:.4g}")


def _checkpoint(job: Job, data: Mapping[str, Json]) -> Told:
    name = model_names.of_checkpoint(job, data["step"])
    return "info", f"Checkpoint created at step {data['step']}: {name}"


def _pausing(_job: Job, data: Mapping[str, Json]) -> Told:
    why = f": {data['reason']}" if data.get("reason") else ""
    return "info", f"Fine-tuning job is pausing{why}"


def _cancelling(_job: Job, data: Mapping[str, Json]) -> Told:
    why = f": {data['reason']}" if data.get("reason") else ""
    return "info", f"Fine-tuning job is being cancelled{why}"


def _made(_job: Job, data: Mapping[str, Json]) -> Told:
    return "info", f"Saved the fine-tuned model {data['name']}, which is there when the job has succeeded"


def _succeeded(job: Job, _data: Mapping[str, Json]) -> Told:
    return "info", f"The job has successfully completed; the model is {model_names.of_job(job)}"


def _said(level: Level, message: str) -> Callable[[Job, Mapping[str, Json]], Told]:
    return lambda _job, _data: (level, message)


def _own_words(level: Level) -> Callable[[Job, Mapping[str, Json]], Told]:
    return lambda _job, data: (level, data["message"])


_SENTENCES: Final[Mapping[str, Callable[[Job, Mapping[str, Json]], Told]]] = {
    facts.JobSubmitted.type: _submitted,
    facts.AttemptStarted.type: _started,
    facts.JobQueued.type: _queued,
    facts.JobProgress.type: _progress,
    facts.EvaluationRecorded.type: _evaluated,
    facts.CheckpointSaved.type: _checkpoint,
    facts.JobAdvice.type: _own_words("info"),
    facts.AttemptAlert.type: _own_words("warn"),
    facts.JobPauseRequested.type: _pausing,
    facts.JobPaused.type: _said("info", "Fine-tuning job paused"),
    facts.JobCancelRequested.type: _cancelling,
    facts.JobCancelled.type: _said("info", "Fine-tuning job cancelled"),
    facts.AttemptModel.type: _made,
    facts.JobSucceeded.type: _succeeded,
    facts.JobFailed.type: _own_words("error"),
}

TYPES: Final = tuple(_SENTENCES)  #: of the events that are told; the others say nothing to OpenAI's clients
