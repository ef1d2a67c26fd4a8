"""A trace for each job that has ended: the job, what it waited, and each of its attempts.

Made from the log when the job ends, so it is whole whatever was restarted meanwhile, and its ids follow from the
job's: made again after a crash it is the same trace.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from finetuned import __version__
from finetuned.domain import facts
from finetuned.domain.errors import NotFoundError
from finetuned.domain.job import Attempt, Job
from finetuned.domain.states import JobState
from finetuned.queries.door import Queries
from finetuned_events import Event

log = logging.getLogger(__name__)

SCOPE = InstrumentationScope("finetuned", __version__)
ROOT = "job"


def context(job_id: str, part: str = ROOT) -> SpanContext:
    """The ids of a job's trace and of a part of it."""
    trace_id = int.from_bytes(hashlib.sha256(f"trace/{job_id}".encode()).digest()[:16])
    span_id = int.from_bytes(hashlib.sha256(f"span/{job_id}/{part}".encode()).digest()[:8])
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def spans(job: Job, resource: Resource) -> list[ReadableSpan]:
    """The spans of a job that has ended, the job's own last."""
    return [
        *_waits(job, resource),
        *(_attempt(job, each, resource) for each in job.attempts),
        _root(job, resource),
    ]


def _root(job: Job, resource: Resource) -> ReadableSpan:
    attributes = {
        "finetuned.job.id": job.id,
        "finetuned.job.kind": job.kind,
        "finetuned.job.name": job.name,
        "finetuned.job.state": job.state.value,
        "finetuned.job.priority": job.priority,
        "finetuned.job.attempts": len(job.runs),
        "finetuned.job.submitted_by": job.submitted_by,
    }
    status = Status()
    if job.state is JobState.FAILED and job.error is not None:
        status = Status(StatusCode.ERROR, job.error["message"])
    return ReadableSpan(
        name=f"job {job.kind}",
        context=context(job.id),
        resource=resource,
        attributes=_known(attributes),
        links=[Link(context(job.retry_of))] if job.retry_of else [],
        kind=SpanKind.INTERNAL,
        status=status,
        start_time=job.created_at * 1000,
        end_time=(job.finished_at or job.updated_at) * 1000,
        instrumentation_scope=SCOPE,
    )


def _attempt(job: Job, attempt: Attempt, resource: Resource) -> ReadableSpan:
    attributes: dict[str, AttributeValue | None] = {
        "finetuned.attempt.number": attempt.number,
        "finetuned.attempt.purpose": attempt.purpose,
        "finetuned.attempt.devices": attempt.devices,
        "finetuned.attempt.outcome": attempt.outcome,
        "finetuned.attempt.failure": attempt.failure,
        "finetuned.attempt.exit_code": attempt.exit_code,
        "finetuned.attempt.signal": attempt.signal,
        "finetuned.attempt.resumed": attempt.resume_from is not None,
        "process.pid": attempt.pid,
    }
    bad = attempt.outcome not in {"succeeded", "cancelled", "paused"}
    return ReadableSpan(
        name=f"attempt {attempt.purpose}",
        context=context(job.id, f"attempt/{attempt.number}"),
        parent=context(job.id),
        resource=resource,
        attributes=_known(attributes),
        status=Status(StatusCode.ERROR, attempt.cause) if bad else Status(),
        start_time=attempt.starting_at * 1000,
        end_time=(attempt.ended_at or job.updated_at) * 1000,
        instrumentation_scope=SCOPE,
    )


def _waits(job: Job, resource: Resource) -> Iterator[ReadableSpan]:
    """What passed before each attempt: in the queue, in a backoff, or paused."""
    since = job.created_at
    for attempt in job.attempts:
        yield ReadableSpan(
            name="wait",
            context=context(job.id, f"wait/{attempt.number}"),
            parent=context(job.id),
            resource=resource,
            start_time=since * 1000,
            end_time=attempt.starting_at * 1000,
            instrumentation_scope=SCOPE,
        )
        since = attempt.ended_at or attempt.starting_at


def _known(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}


@dataclass(frozen=True, slots=True)
class JobTracer:
    """The follower that hands the spans of ended jobs on."""

    name: ClassVar[str] = "job-tracer"
    types: ClassVar[tuple[str, ...]] = (
        facts.JobSucceeded.type,
        facts.JobFailed.type,
        facts.JobCancelled.type,
    )

    queries: Queries
    processor: SpanProcessor
    resource: Resource

    async def react(self, event: Event) -> None:
        """Trace the job that has ended, unless it was deleted since."""
        try:
            job = await self.queries.job(event.stream.removeprefix("job/"))
        except NotFoundError:
            return
        try:
            for span in spans(job, self.resource):
                self.processor.on_end(span)
        except Exception:  # what only tells of the work must not stop it
            log.exception("Job %s could not be traced", job.id)
