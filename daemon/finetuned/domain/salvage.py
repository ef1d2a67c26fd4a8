"""What is made of a job's leftovers goes into the transaction that ends it without success; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from finetuned.domain import facts
from finetuned.domain.job import Job
from finetuned.domain.streams import job_event
from finetuned_events import NewEvent

Json = Any
Events = list[NewEvent]

ACTOR: Final = "salvage"


class SalvageDueError(Exception):
    """The job is about to end without success, and nobody has looked yet for what it leaves."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How a job ends without success: cancelled or failed, and why."""

    was_cancelled: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class Salvage:
    """What is to be recorded before a job's end, and the end that it was made for; ``None``: it goes with any."""

    facts: Sequence[facts.Fact] = ()
    fate: Fate | None = None


NOTHING: Final = Salvage()


def fate(job: Job, events: Events) -> Fate | None:
    """How events end a job without success; ``None`` if they do not."""
    for each in events:
        if each.type == facts.JobCancelled.type:
            asked = [e.data["reason"] for e in events if e.type == facts.JobCancelRequested.type]
            return Fate(was_cancelled=True, reason=asked[-1] if asked else job.cancel_reason)
        if each.type == facts.JobFailed.type:
            return Fate(was_cancelled=False, reason=each.data["message"])
    return None


def placed(job: Job, events: Events, salvaged: Salvage | None) -> Events:
    """The events, with what was salvaged before the one that ends the job.

    Raises ``SalvageDueError`` if they end it without success and ``salvaged`` is ``None``, or was made for another end.
    """
    end = fate(job, events)
    if end is None:
        return events
    if salvaged is None or salvaged.fate not in (None, end):
        raise SalvageDueError
    ends = {facts.JobCancelled.type, facts.JobFailed.type}
    place = next(place for place, each in enumerate(events) if each.type in ends)
    made = [job_event(job.id, fact, actor=ACTOR) for fact in salvaged.facts]
    return [*events[:place], *made, *events[place:]]
