"""Places in the queue: one point of priority is worth ``PRIORITY_SECONDS`` of waiting.

Since every job's age grows at the same rate, comparing aged priorities is comparing ``queued since - priority *
PRIORITY_SECONDS``: a key that never changes.
"""

from __future__ import annotations

from typing import Final

from finetuned.domain.job import Job

PRIORITY_SECONDS: Final = 600
POINT: Final = PRIORITY_SECONDS * 1_000_000  # what one point of priority moves a place by


def place(since: int, priority: int) -> int:
    """Where who asks since a time (microseconds) with a priority stands: smaller goes first."""
    return since - priority * POINT


def order(job: Job) -> tuple[int, int]:
    """The job's place in the queue: smaller goes first. Microseconds, then the submit order."""
    return (place(job.created_at, job.priority), job.seq)
