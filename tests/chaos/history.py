"""The harness's own history: what was asked, and what became of it as the client saw it; held against the log."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.report import Figure, none_of

Event = Mapping[str, Any]

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"


@dataclass(slots=True)
class Operation:
    """One command, sent once or several times under one key. ``outcome`` is unknown until an answer was read."""

    what: str
    key: str
    job: str | None = None  # its subject; of a submission only once it was answered
    name: str | None = None  # a submission's own name
    outcome: str = UNKNOWN
    sent: int = 0
    unread: int = 0  # of these, whose answer was not read: they may still be on their way
    answers: list[tuple[int, str | None]] = field(default_factory=list)  # status, and the job that was named


class History:
    """All operations of all clients of one daemon. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._lock = threading.Lock()

    def invoke(self, operation: Operation) -> Operation:
        """Note an operation before anything of it is sent."""
        with self._lock:
            self.operations.append(operation)
        return operation

    def submitted(self) -> list[str]:
        """The jobs whose submission was answered."""
        with self._lock:
            return [each.job for each in self.operations if each.what == "submit" and each.job is not None]

    def figures(self, events: Sequence[Event]) -> tuple[list[Figure], list[str]]:
        """Hold the history against the whole log: the figures, none without an operation, and what is wrong."""
        if not self.operations:
            return [], []
        wrong = list(self._wrong(events))
        outcomes = Counter(each.outcome for each in self.operations)
        repeated = sum(each.sent > 1 for each in self.operations)
        figures = [
            Figure("operations acknowledged", outcomes[OK]),
            Figure("with unknown outcome", outcomes[UNKNOWN]),
            Figure("sent more than once", repeated),
            none_of("acknowledged lost, or anything done twice", wrong),
        ]
        return figures, wrong

    def _wrong(self, events: Sequence[Event]) -> Iterable[str]:
        named = _submitted(events)
        accepted, streams = _accepted(events), _streams(events)
        actor = next((event["actor"] for event in events if event["type"] == "job.submitted"), "")
        for each in self.operations:
            times = accepted[hashlib.sha256(f"{actor}\0{each.key}".encode()).hexdigest()]
            if each.what == "submit":
                jobs = named[each.name or ""]
                times = max(times, len(jobs))
                if each.job is not None and jobs != [each.job]:
                    yield f"{each.name} was answered with {each.job}, the log has {jobs}"
            elif each.outcome == OK and not any(
                _is_trace(event, each.what) for event in streams[each.job or ""]
            ):
                yield f"{each.what} of {each.job} was acknowledged and is not in the log"
            if each.outcome == OK and times != 1:
                yield f"{each.what} {each.key} was acknowledged and is in the log {times} times"
            if each.outcome == FAILED and times:
                yield f"{each.what} {each.key} was refused ({each.answers}) and is in the log {times} times"
            if times > 1:
                yield f"{each.what} {each.key} is in the log {times} times"


def _is_trace(event: Event, what: str) -> bool:
    """Whether an event is what an acknowledged command of this name must have left in its job's stream."""
    kind, data = str(event["type"]), event["data"]
    if what == "resume":  # one that has not left yet is asked to go on by itself once it has
        return (kind == "job.queued" and data["reason"] == "resumed") or (
            kind == "job.pause_requested" and data["then"] == "queued"
        )
    return TRACES[what] == kind


TRACES = {
    "cancel": "job.cancel_requested",
    "pause": "job.pause_requested",
    "checkpoint": "job.checkpoint_requested",
}


def _submitted(events: Sequence[Event]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event["type"] == "job.submitted" and event["data"]["name"]:
            found[event["data"]["name"]].append(event["stream"].removeprefix("job/"))
    return found


def _accepted(events: Sequence[Event]) -> Counter[str]:
    return Counter(event["data"]["id"] for event in events if event["type"] == "request.accepted")


def _streams(events: Sequence[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event["stream"].removeprefix("job/")].append(event)
    return found
