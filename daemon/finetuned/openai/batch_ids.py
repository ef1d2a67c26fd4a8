"""Ids of batches: the ids that the daemon gives to jobs, behind OpenAI's prefix. Pure."""

from __future__ import annotations

from typing import Final

JOB: Final = "job-"
BATCH: Final = "batch_"


def of_job(job_id: str) -> str:
    """The id of a batch."""
    return BATCH + job_id.removeprefix(JOB)


def job_of(batch_id: str) -> str | None:
    """The job behind the id; ``None`` for what is spelled otherwise."""
    return JOB + batch_id.removeprefix(BATCH) if batch_id.startswith(BATCH) else None
