"""Ids of fine-tuning jobs, and of what belongs to them: the ids that the daemon gives, behind OpenAI's prefixes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

JOB: Final = "job-"
FINE_TUNING: Final = "ftjob-"
EVENT: Final = "ftevent-"
CHECKPOINT: Final = "ftckpt_"


def of_job(job_id: str) -> str:
    """The id of a fine-tuning job."""
    return FINE_TUNING + job_id.removeprefix(JOB)


def job_of(fine_tuning_id: str) -> str | None:
    """The job behind the id; ``None`` for what is spelled otherwise."""
    if not fine_tuning_id.startswith(FINE_TUNING):
        return None
    return JOB + fine_tuning_id.removeprefix(FINE_TUNING)


def of_event(seq: int) -> str:
    """The id of an event: its position in the log."""
    return f"{EVENT}{seq}"


def position_of(event_id: str) -> int | None:
    """The position behind the id of an event; ``None`` for what is spelled otherwise."""
    digits = event_id.removeprefix(EVENT)
    is_one = digits != event_id and digits.isascii() and digits.isdigit() and len(digits) < 19
    return int(digits) if is_one else None


def place_of(checkpoint_id: str, job_id: str) -> tuple[int, int] | None:
    """Attempt and step behind the id of a checkpoint of a job; ``None`` for what is spelled otherwise."""
    attempt, _, step = checkpoint_id.removeprefix(f"{CHECKPOINT}{job_id.removeprefix(JOB)}-").partition("-")
    is_one = all(each.isascii() and each.isdigit() and len(each) < 19 for each in (attempt, step))
    return (int(attempt), int(step)) if is_one else None


def of_checkpoint(job_id: str, checkpoint: Mapping[str, Any]) -> str:
    """The id of a checkpoint, which no other checkpoint of any attempt has."""
    return f"{CHECKPOINT}{job_id.removeprefix(JOB)}-{checkpoint['attempt']}-{checkpoint['step']}"
