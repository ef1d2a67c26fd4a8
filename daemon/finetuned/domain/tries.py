"""How many tries a job has left after an attempt that came to nothing, and how long the next one waits; pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetuned.domain import failures
from finetuned.domain.job import Attempt, Job
from finetuned.domain.states import JobState

BACKOFF_FIRST_S = 5.0
BACKOFF_LONGEST_S = 300.0
UNCOUNTED = frozenset({"paused", "cancelled", "succeeded"})  # outcomes that use up no try


def with_newest(job: Job, newest: Attempt) -> list[Attempt]:
    """The attempts at the same purpose that came to nothing, and the newest, which is just ending so."""
    earlier = job.attempts[:-1]
    same = [each for each in earlier if each.purpose == newest.purpose and each.outcome not in UNCOUNTED]
    return [*same, newest]


def are_used_up(job: Job, tries: Sequence[Attempt], *, next_from: str | None) -> bool:
    """Whether no other try follows. ``next_from`` is the checkpoint that it would go on from.

    An engine that had loaded uses up none, and who asks one none that got answers: they may crash once a week for ever.
    """
    ends = [failures.End(each.failure, got_on=_got_on(job, each, next_from)) for each in brief(tries)]
    return failures.counted(ends) >= job.max_attempts


def brief(tries: Sequence[Attempt]) -> list[Attempt]:
    """Those that came to nothing at all: not engines that had loaded, and not who had answers of one."""
    return [each for each in tries if not each.fruitful]


def _got_on(job: Job, attempt: Attempt, next_from: str | None) -> bool:
    """Whether the attempt after this one goes on from another checkpoint than this one did."""
    after = next((each for each in job.attempts if each.number > attempt.number), None)
    left = next_from if after is None else after.resume_from
    return attempt.purpose == "run" and left not in {None, attempt.resume_from}


def delay_s(job: Job) -> float:
    """Seconds that a job waits, from the end of its newest attempt, before the next may start; 0 if it does not.

    A run's is in the log, with its jitter. A validation's follows from those before it that came to nothing.
    """
    if job.state is JobState.QUEUED:
        return job.delay_s
    newest = job.attempt if job.state is JobState.VALIDATING else None
    if newest is None or newest.is_live or newest.outcome in UNCOUNTED:
        return 0.0
    return backoff_s(len(with_newest(job, newest)), jitter=1.0)


def backoff_s(tries: int, jitter: float) -> float:
    """Seconds before try ``tries + 1``: doubled each time, capped, spread over the upper half by ``jitter``."""
    longest = min(BACKOFF_FIRST_S * 2.0 ** (tries - 1), BACKOFF_LONGEST_S)
    return round(longest * (0.5 + 0.5 * jitter), 3)
