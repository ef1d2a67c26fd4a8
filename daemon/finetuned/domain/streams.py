"""Facts as new events of the streams that they belong to."""

from __future__ import annotations

from finetuned.domain import facts
from finetuned_events import NewEvent


def job_event(job_id: str, fact: facts.Fact, *, actor: str, cause: str | None = None) -> NewEvent:
    """A fact on the stream of a job."""
    return event(f"job/{job_id}", fact, actor, cause)


def event(stream: str, fact: facts.Fact, actor: str, cause: str | None = None) -> NewEvent:
    """A fact on any stream."""
    return NewEvent(
        stream=stream,
        type=fact.type,
        data=fact.to_data(),
        actor=actor,
        cause=cause,
        schema=facts.SCHEMAS[fact.type],
    )
