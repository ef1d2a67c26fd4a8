"""What attempts are told: their workers by the spec, their supervisors by what the log says of them now."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetuned.attempts.liveness import beat_interval
from finetuned.attempts.ports import LiveAttempt, SpecUnavailableError, StopOrder, Timeouts
from finetuned.domain import pauses
from finetuned.domain.failures import Failure
from finetuned.domain.job import Attempt, Job
from finetuned.domain.states import JobState
from finetuned.machine import devices
from finetuned_sdk import SDK_VERSION, JobKind
from finetuned_sdk.bundle import Spec
from finetuned_sdk.context import CallbackSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettings:
    """What the operator's configuration says about attempts. ``grace_s``: seconds between SIGTERM and SIGKILL.

    ``output_files`` of ``output_file_bytes`` are kept of what an attempt prints. ``cache_dir`` is shared by all workers.
    With ``warm_start`` they may be forked from a process with their imports.
    """

    allow_remote_code: bool
    grace_s: float
    output_file_bytes: int = 10_000_000
    output_files: int = 7
    cache_dir: Path | None = None
    warm_start: bool = False
    interpreter: str = sys.executable
    interpreters: Mapping[str, str] = field(
        default_factory=dict
    )  # of kinds that run in an environment of their own


def live(job: Job, attempt: Attempt) -> LiveAttempt:
    """An attempt as its supervisor is to see to it now."""
    return LiveAttempt(
        job=job.id,
        number=attempt.number,
        purpose=attempt.purpose,
        line=attempt.line,
        stop=_stop_order(job, attempt),
        checkpoints=attempt.checkpoint_requests,
        timeouts=_timeouts(job),
        spent_s=sum(each.wall_s for each in job.runs[:-1]),
        limits=job.limits,
    )


def _timeouts(job: Job) -> Timeouts:
    known = Timeouts.__dataclass_fields__
    return Timeouts(**{name: each for name, each in job.timeouts.items() if name in known})  # type: ignore[arg-type]


def _stop_order(job: Job, attempt: Attempt) -> StopOrder | None:
    stopping = attempt.stopping
    if (
        stopping is not None and stopping["failure"] == Failure.STOPPED
    ):  # by hand: the watchdog has other reasons
        return StopOrder(reason=stopping["reason"], failure=stopping["failure"], force=True)
    if job.state is JobState.CANCELLING:
        return StopOrder(reason=job.cancel_reason or "cancelled")
    if attempt.stopping is not None:
        was_told = attempt.stopping["action"] != "request_stop"  # by SIGTERM: no more patience
        return StopOrder(
            reason=attempt.stopping["reason"],
            checkpoint=True,
            patience_s=0.0 if was_told else pauses.wait_of(job),
            failure=attempt.stopping["failure"],
        )
    if job.state is JobState.PAUSING:
        return StopOrder(reason=job.pause_reason or "paused", checkpoint=True, patience_s=job.pause_wait_s)
    return None


def spec(job: Job, attempt: Attempt, kind: JobKind, settings: AttemptSettings, *, slots: int) -> Spec:
    """What the worker of an attempt is told. Raises ``SpecUnavailableError`` if its kind lost what it needs."""
    entry = kind.entry if attempt.purpose == "run" else kind.validator
    if entry is None:
        raise SpecUnavailableError(
            f"The job kind {kind.name!r} has no validator any more; submit the job again"
        )
    return Spec(
        job=job.id,
        attempt=attempt.number,
        purpose=attempt.purpose,
        kind=job.kind,
        entry=entry,
        params={**job.params, **attempt.overrides},
        params_model=f"{kind.params.__module__}:{kind.params.__qualname__}",
        models=job.models,
        datasets=job.datasets,
        callbacks=tuple(CallbackSpec(**callback) for callback in job.callbacks),
        resume_from=attempt.resume_from,
        devices=tuple(attempt.devices),
        allow_remote_code=settings.allow_remote_code,
        metadata={"kind": job.kind, "name": job.name, "params": job.params, "retry_of": job.retry_of},
        interpreter=settings.interpreters.get(kind.name, settings.interpreter),
        environment=devices.environment(attempt.devices, slots=slots),
        secrets=job.secrets,
        grace_s=settings.grace_s,
        output_file_bytes=settings.output_file_bytes,
        output_files=settings.output_files,
        cache=None if settings.cache_dir is None else str(settings.cache_dir),
        limits=job.limits,
        heartbeat_s=beat_interval(_timeouts(job)),
        sdk=SDK_VERSION,
    )


def preload(kind: JobKind, params: Mapping[str, Any], models: Mapping[str, str]) -> tuple[str, ...]:
    """The modules that a worker may be forked with. ``models`` maps parameters to directories of registered models.

    None where the plugin cannot tell: the worker will say what is wrong. Reads files of the model.
    """
    if kind.preload is None:
        return ()
    try:
        return tuple(kind.preload(kind.params.model_validate(params).model_copy(update=dict(models))))
    except Exception as error:  # noqa: BLE001 - a third party's code, and its job can start without
        log.warning("%s cannot tell what to import beforehand: %r", kind.name, error)
        return ()
