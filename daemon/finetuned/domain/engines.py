"""Which engines there should be: who asks for one, which is started, which has nobody left to ask it. Pure.

An engine is a job of a kind that plugins declare as such; who asks for it names it by its key, that is by what it is:
its kind, its model and its options. Engines are jobs like others to the scheduler: they wait for a device in the queue,
hold it while they run, and may be preempted. What is special is decided here. They live as long as somebody asks them,
and a while longer if nobody else waits for their device. So what is queued for one model is served before another engine
takes its place, and swaps are few. But not for ever: whoever waits for the device and has waited longer, by what a point of
priority is worth, than all who ask the engine has its turn first.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from finetuned.domain.job import SERVING, Job
from finetuned.domain.places import POINT, place
from finetuned.domain.states import JobState
from finetuned.domain.world import Slot

Json = Any

ACTOR = "engines"
_ASKING = frozenset({JobState.QUEUED, JobState.STARTING, JobState.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An engine that somebody asks for. ``since`` is the position in the log at which the newest of them asked.

    ``place`` is that of the first of them in the queue: see ``finetuned.domain.places``.
    """

    kind: str
    params: Mapping[str, Json]
    model: str  # as people name it
    priority: int = 0
    since: int = 0
    place: int = 0

    @property
    def key(self) -> str:
        """What the engine is: the same for all that can share it."""
        return key_of(self.kind, self.params)


@dataclass(frozen=True, slots=True)
class Failed:
    """An engine that could not be had: the position in the log by which that was known, and why."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Contender:
    """The job that is next and lacks devices: how many beside those that are free or being left."""

    job: Job
    missing: int

    @property
    def place(self) -> int:
        """Where it stands in the queue."""
        return place(self.job.created_at, self.job.priority)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: engines to submit, and engine jobs to end, each with the reason."""

    start: tuple[Wanted, ...] = ()
    stop: tuple[tuple[Job, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Who asks beside the jobs of the log, and what is known of engines beside it.

    ``online`` are requests under way by the key of their engine; ``failed`` engines by key; ``idle`` names engine jobs
    that nobody has asked for long enough to let them go.
    """

    online: Mapping[str, Wanted] = field(default_factory=dict)
    failed: Mapping[str, Failed] = field(default_factory=dict)
    idle: AbstractSet[str] = frozenset()


def key_of(kind: str, params: Mapping[str, Json]) -> str:
    """The key of an engine: a hash of what it is."""
    named = json.dumps([kind, dict(params)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def wanted_of(job: Job) -> Wanted | None:
    """The engine that a live job asks for; none where it asks for none, or not now."""
    need = job.engine
    if need is None or job.state not in _ASKING:
        return None
    return Wanted(
        kind=need["kind"],
        params=need["params"],
        model=need["model"],
        priority=job.priority,
        since=job.seq,
        place=place(job.created_at, job.priority),
    )


def demanded(jobs: Iterable[Job], demand: Demand) -> dict[str, Wanted]:
    """What is asked for, by key: of those that ask the same the highest priority, the newest and the first place count."""
    found: dict[str, Wanted] = {}
    asked = (wanted for job in jobs if (wanted := wanted_of(job)) is not None)
    for each in (*asked, *demand.online.values()):
        other = found.get(each.key, each)
        found[each.key] = replace(
            other,
            priority=max(each.priority, other.priority),
            since=max(each.since, other.since),
            place=min(each.place, other.place),
        )
    return found


def asking(jobs: Iterable[Job]) -> Counter[tuple[str, int]]:
    """How many jobs of each priority ask each engine, by its key, with an attempt that lives."""
    return Counter(
        (job.engine["key"], job.priority) for job in jobs if job.engine and job.live_attempt is not None
    )


def as_asked(jobs: Iterable[Job]) -> list[Job]:
    """The jobs; each engine has the priority and the place of the first of the jobs that ask it, none of its own."""
    live = list(jobs)
    if not any(job.serves for job in live):
        return live
    asked = demanded(live, Demand())
    return [job if job.serves is None else _as_asked(job, asked.get(job.serves)) for job in live]


def _as_asked(engine: Job, wanted: Wanted | None) -> Job:
    if wanted is None:
        return replace(engine, priority=0)
    return replace(engine, priority=wanted.priority, created_at=wanted.place + wanted.priority * POINT)


def engines(jobs: Iterable[Job]) -> Iterator[Job]:
    """The live engines among jobs, those that are ending too."""
    return (job for job in jobs if job.serves is not None)


def engine_of(key: str, jobs: Iterable[Job]) -> Job | None:
    """The engine of a key that lives and is not being ended."""
    return next((each for each in engines(jobs) if each.serves == key and _stays(each)), None)


def is_serving(engine: Job) -> bool:
    """Whether an engine answers."""
    return engine.state is JobState.RUNNING and engine.phase == SERVING


def plan(jobs: Iterable[Job], demand: Demand, *, contested: bool, contender: Contender | None = None) -> Plan:
    """What is to be done now.

    ``contested``: a queued job waits for a device that an engine might have. ``contender``: that which is next.
    """
    live = list(jobs)
    asked = demanded(live, demand)
    present = {each.serves for each in engines(live)}
    start = [
        wanted
        for key, wanted in asked.items()
        if key not in present and not has_failed(wanted.since, demand.failed.get(key))
    ]
    unasked = [(each, why) for each in engines(live) if (why := _why_stop(each, asked, demand, contested))]
    freed = sum(len(_devices(each)) for each, _ in unasked)
    return Plan(tuple(start), (*unasked, *_turned_out(live, asked, contender, freed)))


def _turned_out(
    jobs: Iterable[Job], asked: Mapping[str, Wanted], contender: Contender | None, freed: int
) -> list[tuple[Job, str]]:
    """The engines whose turn is over: as few as the next job needs, first those that are asked by who came last."""
    if contender is None:
        return []
    missing = contender.missing - freed
    latest = sorted(
        (
            (wanted.place, each)
            for each in engines(jobs)
            if (wanted := asked.get(each.serves or "")) and is_overdue(contender, wanted) and _holds(each)
        ),
        key=lambda found: -found[0],
    )
    leaving: list[Job] = []
    for _, each in latest:
        if missing > 0:
            leaving.append(each)
            missing -= len(_devices(each))
    why = f"{contender.job.id} has waited longer for a device than all who ask it"
    return [(each, why) for each in leaving] if missing <= 0 else []


def is_overdue(contender: Contender, wanted: Wanted) -> bool:
    """Whether a job that waits for a device has its turn before those who ask an engine."""
    return contender.place + POINT <= wanted.place


def _holds(engine: Job) -> bool:
    return _stays(engine) and engine.state is JobState.RUNNING and bool(_devices(engine))


def _devices(engine: Job) -> tuple[str, ...]:
    attempt = engine.live_attempt
    return () if attempt is None else tuple(attempt.devices)


def has_failed(since: int, failed: Failed | None) -> bool:
    """Whether the engine that was asked for at a position has failed since: who asks later has it tried again."""
    return failed is not None and since <= failed.seq


def is_contested(jobs: Iterable[Job], slots: Iterable[Slot], in_backoff: AbstractSet[str]) -> bool:
    """Whether a queued job lacks devices: it might have those of an engine that goes."""
    free = sum(slot.holder is None for slot in slots)
    return any(
        job.state is JobState.QUEUED and job.devices > free and job.id not in in_backoff for job in jobs
    )


def _why_stop(engine: Job, asked: Mapping[str, Wanted], demand: Demand, contested: bool) -> str | None:
    if engine.serves in asked or not _stays(engine):
        return None
    if engine.state is not JobState.RUNNING:
        return "nobody asks for it any more"
    if contested:
        return "nobody asks it, and another job waits for its device"
    return "nobody has asked it for a while" if engine.id in demand.idle else None


def _stays(engine: Job) -> bool:
    return engine.is_live and engine.state is not JobState.CANCELLING
