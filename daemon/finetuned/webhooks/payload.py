"""What is sent: events as ``/v1/events`` shows them, and OpenAI's, which follow from the ends of jobs. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from finetuned import views
from finetuned.domain import facts, subscriptions
from finetuned.domain.job import Job
from finetuned.openai import batch_ids, batches, fine_tuning_ids
from finetuned_events import Event

TEST: Final = "webhook.test"
ENDS: Final = frozenset(subscriptions.WIRE_TYPES.values())
_IDS: Final = {"fine_tuning.job": fine_tuning_ids.of_job, "batch": batch_ids.of_job}
_STATES: Final = {
    ("fine_tuning.job", facts.JobSucceeded.type): "succeeded",
    ("batch", facts.JobSucceeded.type): "completed",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its id, the same however often it is sent, and the bytes that are signed."""

    id: str
    type: str
    body: bytes


def messages(event: Event, wanted: Collection[str], job: Job | None) -> Iterator[Message]:
    """What an event is to a receiver that wants these types. ``job`` is the one that an event of a job's end is of."""
    if event.type in wanted:
        yield Message(_id(event, event.type), event.type, orjson.dumps(views.event(event)))
    wire = None if job is None else _wire_type(event, job)
    if job is not None and wire is not None and wire in wanted:
        yield _of_openai(event, wire, job)


def test(nonce: str, at: int) -> Message:
    """A message that says only that it came. ``at`` is in microseconds since the epoch."""
    body = {"type": TEST, "at": views.time(at), "data": {"text": "finetuned can reach this address."}}
    return Message(f"evt_{nonce}", TEST, orjson.dumps(body))


def _of_openai(event: Event, wire: str, job: Job) -> Message:
    """OpenAI's shape, with its ids and its Unix seconds."""
    view = subscriptions.KINDS[job.kind]
    message_id = _id(event, wire)
    body = {
        "object": "event",
        "id": message_id,
        "type": wire,
        "created_at": event.at // 1_000_000,
        "data": {"id": _IDS[view](job.id)},
    }
    return Message(message_id, wire, orjson.dumps(body))


def _wire_type(event: Event, job: Job) -> str | None:
    """OpenAI's name for what has happened; ``None`` if it has none."""
    view = subscriptions.KINDS.get(job.kind)
    if view is None or event.type not in ENDS:
        return None
    if view == "batch" and event.type == facts.JobCancelled.type and _has_expired(job):
        return "batch.expired"
    state = _STATES.get((view, event.type), event.type.removeprefix("job."))
    return f"{view}.{state}"


def _has_expired(job: Job) -> bool:
    return (job.cancel_reason or "").startswith(batches.EXPIRED)


def _id(event: Event, name: str) -> str:
    """The same for one event for ever, over restarts, retries, replays and restored backups; another's for no other."""
    told = f"{event.stream}\0{event.version}\0{event.at}\0{name}"
    return "evt_" + hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
