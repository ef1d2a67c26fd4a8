"""How an attempt ended, judged from what it reported, what was asked of it and how its process ended; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetuned.domain import failures
from finetuned.domain.failures import Failure
from finetuned.domain.job import Attempt, Job
from finetuned.domain.states import JobState

SIGKILL = 9
SIGTERM = 15
STOPPED_EXIT_CODE = 75  # of a worker that saw SIGTERM or a request, and stopped; as in finetuned_sdk.bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The proven end of an attempt. ``lost`` says why nothing tells how it ended; ``problem`` spoils a success.

    ``refused`` is the code of what kept it from starting, which ``lost`` tells, if another try cannot mend that.
    ``oom_evidence`` says by what ``oom_killed`` is known. ``asked`` is why its bundle asked it to stop, or why it never
    began, as ``lost`` tells then.
    """

    exit_code: int | None
    signal: int | None
    lost: str | None
    problem: str | None
    oom_killed: bool
    usage: Mapping[str, float]
    refused: str | None = None
    oom_evidence: str | None = None
    asked: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether it ended as one does that was told to stop."""
        return self.exit_code == STOPPED_EXIT_CODE or self.signal == SIGTERM

    @property
    def obeyed(self) -> bool:
        """Whether it was asked to stop, and did, was made to after its grace, or never began."""
        was_made_to = self.lost is not None or self.stopped or self.signal == SIGKILL
        return self.asked is not None and was_made_to and not self.oom_killed


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended, why, and the kind of its failure if it is one.

    ``waits``: its cause is nothing that another attempt could mend; the job is to wait until somebody resumes it.
    """

    outcome: str
    cause: str | None = None
    failure: Failure | None = None
    waits: bool = False


def judge(job: Job, attempt: Attempt, end: End) -> Verdict:
    """How an attempt ended, from what it reported, what was asked of it, and how its process ended."""
    if job.state is JobState.CANCELLING:
        return Verdict("cancelled", job.cancel_reason)
    if end.refused is not None:
        return Verdict("failed", end.lost)
    if attempt.result is not None and end.exit_code == 0 and end.problem is None:
        return Verdict("succeeded")
    if attempt.stopping is not None:
        failure = Failure(attempt.stopping["failure"])
        stalled = failure in {Failure.STALL, Failure.START_TIMEOUT}
        return Verdict("stalled" if stalled else "failed", attempt.stopping["reason"], failure)
    if attempt.error is not None and attempt.error.get("pauses") and attempt.purpose == "run":
        return Verdict("paused", attempt.error["message"], waits=True)
    if attempt.error is not None:
        failure = failures.of_error(attempt.error["code"], retryable=bool(attempt.error.get("retryable")))
        return Verdict("failed", attempt.error["message"], failure)
    if job.state is JobState.PAUSING:
        return Verdict("paused", job.pause_reason)
    if end.obeyed:  # the log does not know why: the daemon took its work along, or an older log was put back
        return Verdict("paused", end.lost or f"it was asked to stop: {end.asked}")
    if end.lost is not None:
        return Verdict("lost", end.lost, Failure.LOST)
    return Verdict("crashed", _crash(attempt, end), _failure_of_crash(end))


def _crash(attempt: Attempt, end: End) -> str | None:
    if end.exit_code is None and end.signal is None:
        return end.problem
    if end.oom_killed:
        return end.oom_evidence or "the kernel's out-of-memory killer ended it"
    if end.stopped:
        how = f"signal {end.signal}" if end.exit_code is None else f"exit code {end.exit_code}"
        return f"somebody told it to stop who is neither its watchdog nor a pause nor a cancel ({how})"
    if end.signal is not None:
        return f"it was killed by signal {end.signal}"
    if end.exit_code != 0:
        return f"its process ended with exit code {end.exit_code}"
    return "its process ended without a result" if attempt.result is None else end.problem


def _failure_of_crash(end: End) -> Failure:
    if end.oom_killed:
        return Failure.HOST_OUT_OF_MEMORY
    return Failure.STOPPED if end.stopped else Failure.CRASH
