"""One daemon with everything that looks at it: clients, watchers, the watch for twins; and the reckoning at the end."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from tests.chaos.client import Client
from tests.chaos.history import History
from tests.chaos.load import Load
from tests.chaos.processes import TwinWatch
from tests.chaos.report import Figure, none_of
from tests.chaos.scenario import Task
from tests.chaos.server import Server, until
from tests.chaos.watcher import Watcher, compare

Event = Mapping[str, Any]

SETTLE_S = 180.0  # for all jobs to end after the last disturbance: their backoffs are part of it
GONE_S = 60.0  # for the last runners, which have nothing left to do


class World:
    """A daemon, not started yet, and what looks at it. Use it as a context manager; leaves nothing running."""

    def __init__(
        self, task: Task, number: int = 0, *, slots: int = 2, environment: Mapping[str, str] | None = None
    ) -> None:
        self.chance = task.chance(number)
        self.server = Server(slots=slots, environment=environment or {})
        self.history = History()
        self.watchers: list[Watcher] = []
        self.twins = TwinWatch(lambda: self.server.job_ids)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.server)
        self._stack.enter_context(self.twins)
        return self

    def __exit__(self, *arguments: object) -> None:
        for watcher in self.watchers:
            watcher.close()
        self._stack.__exit__(*arguments)  # type: ignore[arg-type]

    def fork(self) -> random.Random:
        """A source of chance for a thread of its own."""
        return random.Random(self.chance.getrandbits(64))

    def watch(self, count: int, *, life_s: float = 0.5, cuts: int | None = None) -> list[Watcher]:
        """Have clients follow the log."""
        new = [
            Watcher(self.server.socket, self.fork(), life_s=life_s, cuts=cuts).start() for _ in range(count)
        ]
        self.watchers += new
        return new

    def client(self, chance: random.Random, *, lost: float = 0.2) -> Client:
        """A client whose answers get lost."""
        return Client(self.server.socket, self.history, chance, lost=lost)

    def load(self, clients: int, **options: Any) -> Load:
        """Clients that submit and steer."""
        return Load(self.client, self.history, [self.fork() for _ in range(clients)], **options)

    def reckon(self, *, settle_s: float = SETTLE_S) -> Reckoning:
        """Wait for everything to come to rest, and hold what is there against what was seen. The daemon must run."""
        server, found = self.server, Reckoning()
        found.restless = [
            f"{job['id']} is {job['state']}: {job['wait_reason']}" for job in server.settle(settle_s)
        ]
        try:
            until(lambda: not server.of_attempts(), GONE_S, "the end of all processes")
        except TimeoutError:
            found.left = [f"process {pid} of an attempt is left" for pid in server.of_attempts()]
        self.twins.look()
        found.twins = list(self.twins.found)
        head = server.events()[-1]["seq"]
        for watcher in self.watchers:
            watcher.catch_up(head)
            watcher.close()
        found.events = events = server.events()
        found.missed, found.repeated, found.different, seen = compare(self.watchers, events, head)
        found.details += seen
        found.watchers = len(self.watchers)
        found.failed = [
            f"{event['stream']} failed: {event['data']['code']}: {event['data']['message'][:300]}"
            for event in events
            if event["type"] == "job.failed"
        ]
        found.gaps = len(events[-1:]) and events[-1]["seq"] - len(events)
        found.overlaps = overlapping(events)
        found.history, wrong = self.history.figures(events)
        found.details += wrong
        verified, rebuilt = server.ok("POST", "/v1/log/verify"), server.ok("POST", "/v1/log/rebuild")
        found.drift = [] if rebuilt["equal"] else [f"projections differ from a replay: {rebuilt['swapped']}"]
        found.unsound = [] if verified["ok"] else [f"verify: {verified['problems'][:3]}"]
        found.tracebacks = server.log().count("Traceback (most recent call last)")
        if found.tracebacks:
            log = server.log()
            found.details.append(log[log.index("Traceback (most") :][:3000])
        return found


@dataclass(slots=True)
class Reckoning:
    """What is wrong in a world that has come to rest; of several, the sum of them."""

    events: Sequence[Event] = ()
    restless: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    twins: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # whether that is wrong is for the scenario to say
    history: list[Figure] = field(default_factory=list)
    watchers: int = 0
    missed: int = 0
    repeated: int = 0
    different: int = 0
    gaps: int = 0
    tracebacks: int = 0


def overlapping(events: Sequence[Event]) -> list[str]:
    """Attempts that began while an earlier one of their job had not ended, and what ended twice."""
    live: dict[str, int] = {}
    ended: dict[str, set[int]] = defaultdict(set)
    found: list[str] = []
    for event in events:
        job = event["stream"].removeprefix("job/")
        if event["type"] == "attempt.starting":
            if job in live:
                found.append(f"{job}: attempt {event['data']['attempt']} began beside {live[job]}")
            live[job] = event["data"]["attempt"]
        elif event["type"] == "attempt.ended":
            number = event["data"]["attempt"]
            if live.pop(job, None) != number or number in ended[job]:
                found.append(f"{job}: attempt {number} ended and was not the live one")
            ended[job].add(number)
    return found


def figures(found: Sequence[Reckoning]) -> list[Figure]:
    """What every world has to be free of, over all worlds."""
    return [
        Figure("events", sum(len(each.events) for each in found)),
        *summed([each.history for each in found]),
        none_of("gaps in the log", sum(each.gaps for each in found)),
        *_of_watchers(found),
        none_of("projections that differ from a replay", joined(found, "drift")),
        none_of("problems in the log", joined(found, "unsound")),
        none_of("jobs stuck", joined(found, "restless")),
        none_of("jobs with two live attempts by events", joined(found, "overlaps")),
        none_of("by processes", joined(found, "twins")),
        none_of("processes left", joined(found, "left")),
        none_of("tracebacks of the daemon", sum(each.tracebacks for each in found)),
    ]


def _of_watchers(found: Sequence[Reckoning]) -> list[Figure]:
    if not sum(each.watchers for each in found):
        return []
    return [
        none_of("events missed by watchers", sum(each.missed for each in found)),
        none_of("shown twice", sum(each.repeated for each in found)),
        none_of("shown that the log has otherwise or not at all", sum(each.different for each in found)),
    ]


def details(found: Sequence[Reckoning]) -> list[str]:
    """What went wrong, in words."""
    names = ("restless", "left", "twins", "overlaps", "drift", "unsound", "details")
    return [each for name in names for each in joined(found, name)]


def joined(found: Sequence[Reckoning], name: str) -> list[str]:
    """One list of all worlds."""
    return [item for each in found for item in getattr(each, name)]


def summed(figures: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Figures of the same names, added."""
    totals: Counter[str] = Counter()
    holds: dict[str, bool] = {}
    for figure in (figure for each in figures for figure in each):
        totals[figure.what] += int(figure.value)
        holds[figure.what] = holds.get(figure.what, True) and figure.holds
    return [Figure(what, total, holds[what]) for what, total in totals.items()]
