"""How many tries a job has left after an attempt that came to nothing, and how long the next one waits; pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetuned.domain import failures
from finetuned.domain.job import Attempt, Job

BACKOFF_FIRST_S = 5.0
BACKOFF_LONGEST_S = 300.0
UNCOUNTED = frozenset({"paused", "cancelled", "succeeded"})  # outcomes that use up no try


def with_newest(job: Job, newest: Attempt) -> list[Attempt]:
    """The attempts at the same purpose that came to nothing, and the newest, which is just ending so."""
    earlier = job.attempts[:-1]
    same = [each for each in earlier if each.purpose == newest.purpose and each.outcome not in UNCOUNTED]
    return [*same, newest]


def are_used_up(job: Job, tries: Sequence[Attempt], *, next_from: str | None) -> bool:
    """Whether no other try follows. ``next_from`` is the checkpoint that it would go on from."""
    ends = [failures.End(each.failure, got_on=_got_on(job, each, next_from)) for each in tries]
    return failures.counted(ends) >= job.max_attempts


def _got_on(job: Job, attempt: Attempt, next_from: str | None) -> bool:
    """Whether the attempt after this one goes on from another checkpoint than this one did."""
    after = next((each for each in job.attempts if each.number > attempt.number), None)
    left = next_from if after is None else after.resume_from
    return attempt.purpose == "run" and left not in {None, attempt.resume_from}


def backoff_s(tries: int, jitter: float) -> float:
    """Seconds before try ``tries + 1``: doubled each time, capped, spread over the upper half by ``jitter``."""
    longest = min(BACKOFF_FIRST_S * 2.0 ** (tries - 1), BACKOFF_LONGEST_S)
    return round(longest * (0.5 + 0.5 * jitter), 3)
