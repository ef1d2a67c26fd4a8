"""A span for each command that a request gives to the log: how long it waited for its transaction to be on disk."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode, Tracer

from finetuned.domain.errors import FinetunedError
from finetuned.domain.world import World
from finetuned.store import Log
from finetuned_events import Event, EventLog, LogError
from finetuned_events.projection import Decide


def traced_log(tracer: Tracer) -> type[Log]:
    """A log whose commands are traced within a trace. What the daemon does of its own accord is not: jobs' traces tell."""

    class TracedLog(EventLog[World]):
        async def execute(
            self,
            decide: Decide[World],
            *,
            cursor: tuple[str, int] | None = None,
            necessary: bool = False,
        ) -> tuple[Event, ...]:
            """As a log does."""
            if not trace.get_current_span().is_recording():
                return await super().execute(decide, cursor=cursor, necessary=necessary)
            with tracer.start_as_current_span(
                "log.execute",
                attributes={"code.function.name": function_of(decide)},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    events = await super().execute(decide, cursor=cursor, necessary=necessary)
                except (FinetunedError, LogError) as error:
                    span.set_attribute("error.type", getattr(error, "stable_code", error.code))
                    if isinstance(error, LogError):  # not a refusal: the disk is full, or worse
                        span.set_status(Status(StatusCode.ERROR, str(error)))
                    raise
                span.set_attribute("finetuned.events", len(events))
                if events:
                    span.set_attribute("finetuned.event.seq", events[-1].seq)
                    span.set_attribute("finetuned.event.types", [event.type for event in events])
                return events

    return TracedLog


def function_of(decide: object) -> str:
    """The function that a decision was written in: ``Commands.cancel`` for a lambda of it."""
    name: str = getattr(decide, "__qualname__", type(decide).__qualname__)
    return name.partition(".<locals>")[0]
