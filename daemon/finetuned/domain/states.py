"""The states of a job and the one table of transitions between them."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands. ``TRANSITIONS`` says which fact leads from which state to which."""

    VALIDATING = "validating"  #: accepted; its data are being checked by an attempt that holds no device
    QUEUED = "queued"  #: ready; waits for a device, or for its backoff to pass
    STARTING = "starting"  #: holds its devices; the trainer's process is being started
    RUNNING = "running"  #: the trainer reported for work
    PAUSING = "pausing"  #: asked to save a checkpoint and leave its devices
    PAUSED = "paused"  #: holds no device; goes on when it is resumed
    CANCELLING = "cancelling"  #: asked to end; its processes are being stopped
    SUCCEEDED = "succeeded"  #: ended with a result
    FAILED = "failed"  #: ended with an error
    CANCELLED = "cancelled"  #: ended because somebody asked for it


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LIVE = frozenset(JobState) - TERMINAL

_S = JobState

#: (fact, from) -> to. A fact that is not listed for a state must not happen in it.
TRANSITIONS: dict[tuple[str, JobState], JobState] = {
    ("job.queued", _S.VALIDATING): _S.QUEUED,
    ("job.queued", _S.STARTING): _S.QUEUED,
    ("job.queued", _S.RUNNING): _S.QUEUED,
    ("job.queued", _S.PAUSED): _S.QUEUED,
    ("job.queued", _S.PAUSING): _S.QUEUED,  # it was preempted, or the daemon drained
    ("attempt.starting", _S.VALIDATING): _S.VALIDATING,
    ("attempt.starting", _S.QUEUED): _S.STARTING,
    ("attempt.started", _S.VALIDATING): _S.VALIDATING,
    ("attempt.started", _S.STARTING): _S.RUNNING,
    ("attempt.started", _S.PAUSING): _S.PAUSING,
    ("attempt.started", _S.CANCELLING): _S.CANCELLING,
    ("job.pause_requested", _S.QUEUED): _S.PAUSING,
    ("job.pause_requested", _S.STARTING): _S.PAUSING,
    ("job.pause_requested", _S.RUNNING): _S.PAUSING,
    ("job.pause_requested", _S.PAUSING): _S.PAUSING,  # what is to follow the pause has changed
    ("job.paused", _S.PAUSING): _S.PAUSED,
    **{("job.cancel_requested", state): _S.CANCELLING for state in _S if state in LIVE - {_S.CANCELLING}},
    ("job.cancelled", _S.CANCELLING): _S.CANCELLED,
    ("job.succeeded", _S.STARTING): _S.SUCCEEDED,  # its hello was a torn line
    ("job.succeeded", _S.RUNNING): _S.SUCCEEDED,
    ("job.succeeded", _S.PAUSING): _S.SUCCEEDED,
    **{
        ("job.failed", state): _S.FAILED
        for state in (_S.VALIDATING, _S.QUEUED, _S.STARTING, _S.RUNNING, _S.PAUSING)
    },
}


class IllegalTransitionError(Exception):
    """A fact was recorded for a job in a state that does not allow it: a defect of the daemon, never of a user."""


def transition(fact: str, state: JobState) -> JobState:
    """The state that ``fact`` leads to from ``state``. Raises ``IllegalTransitionError`` if there is none."""
    try:
        return TRANSITIONS[fact, state]
    except KeyError:
        raise IllegalTransitionError(f"{fact} must not happen to a job that is {state}") from None
