"""How a job looks to OpenAI's clients that is a batch. Pure."""

from __future__ import annotations

from typing import Any, Final

from finetuned import wire
from finetuned.domain import files
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.waits import Wait
from finetuned.openai import batch_ids
from finetuned.openai.batches import FILE_SCHEME, expires_at, has_expired, window_s

Json = Any

SECOND: Final = 1_000_000  # in microseconds
HOUR_S: Final = 3600
FINALIZING: Final = "finalizing"  # the phase in which a batch makes its files
OUTPUT: Final = "_output.jsonl"  # how the names of these files end
ERROR: Final = "_error.jsonl"

ENDED: Final[dict[JobState, wire.BatchStatus]] = {
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.CANCELLING: "cancelling",
}


def batch(job: Job, wait: Wait | None) -> wire.Batch:
    """A job of the kind batch."""
    found = status(job)
    figures = {**(job.progress or {}), **(job.result or {})}
    ended_at = _seconds(job.finished_at)
    return {
        "id": batch_ids.of_job(job.id),
        "object": "batch",
        "endpoint": job.params.get("endpoint", "/v1/chat/completions"),
        "model": job.params["model"],
        "errors": _errors(job),
        "input_file_id": job.params["input"].removeprefix(FILE_SCHEME),
        "completion_window": _window(job),
        "status": found,
        "output_file_id": _file(job, OUTPUT),
        "error_file_id": _file(job, ERROR),
        "created_at": job.created_at // SECOND,
        "in_progress_at": _seconds(job.started_at) if _is_valid(job) else None,
        "expires_at": _seconds(expires_at(job)),
        "finalizing_at": figures.get("finalizing_at"),
        "completed_at": ended_at if found == "completed" else None,
        "failed_at": ended_at if found == "failed" else None,
        "expired_at": ended_at if found == "expired" else None,
        "cancelling_at": None if has_expired(job) else _seconds(job.cancelling_at),
        "cancelled_at": ended_at if found == "cancelled" else None,
        "request_counts": {
            "total": _total(job),
            "completed": figures.get("completed") or 0,
            "failed": figures.get("failed") or 0,
        },
        "usage": _usage(figures),
        "metadata": {key: str(value) for key, value in job.metadata.items()} or None,
        "x_finetuned": {
            "job": job.id,
            "state": job.state.value,
            "phase": job.phase,
            "priority": job.priority,
            "attempt": 0 if job.attempt is None else job.attempt.number,
            "wait_reason": wait.reason if wait else None,
            "queue_position": wait.position if wait else None,
            "cancel_reason": job.cancel_reason,
            "progress": job.progress,
        },
    }


def status(job: Job) -> wire.BatchStatus:
    """OpenAI's word for where a batch stands."""
    if has_expired(job) and job.state is JobState.CANCELLED:
        return "expired"
    if has_expired(job) and job.state is JobState.CANCELLING:
        return "finalizing"
    if job.state in ENDED:
        return ENDED[job.state]
    if not _is_valid(job):
        return "validating"
    return "finalizing" if job.phase == FINALIZING else "in_progress"


def _audit(job: Job) -> dict[str, Json] | None:
    """What was found of the input, once it was read."""
    return job.audits[-1] if job.audits else None


def _is_valid(job: Job) -> bool:
    audit = _audit(job)
    return audit is not None and not audit["extra"].get("total_problems")


def _total(job: Job) -> int:
    audit = _audit(job)
    if audit is not None:
        return int(audit["rows"]) if _is_valid(job) else 0
    return int((job.progress or {}).get("total_steps") or 0)  # it ended before anybody had read it


def _errors(job: Job) -> wire.BatchList[wire.BatchProblem] | None:
    if job.state is not JobState.FAILED:
        return None
    audit = _audit(job)
    problems: list[wire.BatchProblem] = [] if audit is None else audit["extra"].get("problems") or []
    if not problems and job.error is not None:
        code, message = job.error["code"], job.error["message"]
        problems = [{"code": code, "message": message, "param": None, "line": None}]
    return {"object": "list", "data": problems}


def _file(job: Job, ending: str) -> str | None:
    """The file that the job has made; it is there once the job has ended."""
    if job.is_live:
        return None
    made = (each["name"] for each in job.artifacts if each["kind"].startswith(files.MADE))
    name = next((each for each in made if each.endswith(ending)), None)
    return None if name is None else files.made_id(job.id, name)


def _usage(figures: dict[str, Json]) -> wire.BatchUsage:
    asked, answered = figures.get("input_tokens") or 0, figures.get("output_tokens") or 0
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": figures.get("cached_tokens") or 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": figures.get("reasoning_tokens") or 0},
        "total_tokens": asked + answered,
    }


def _window(job: Job) -> str:
    window = window_s(job)
    if window is None:
        return "none"
    return f"{window // HOUR_S}h" if window % HOUR_S == 0 else f"{window}s"


def _seconds(at: int | None) -> int | None:
    return None if at is None else at // SECOND
