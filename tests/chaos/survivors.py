"""Attempts that nobody disturbs while their daemon is killed: they live on, and the next daemon goes on with them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from tests.chaos.report import Figure, none_of, some
from tests.chaos.server import Server, until
from tests.chaos.world import Event

STEP_S = 0.5  # seldom enough to cost next to nothing
STARTED_S = 90.0
HEARD_S = 30.0


class Survivors:
    """Jobs that have no end of their own. They are not among those that clients steer."""

    def __init__(self, server: Server, count: int) -> None:
        self._server = server
        params = {"steps": 1_000_000, "step_seconds": STEP_S}
        self.jobs = [server.submit("quick", 100, **params) for _ in range(count)]
        for job in self.jobs:
            until(lambda job=job: server.steps(job), STARTED_S, f"the first step of {job}")  # type: ignore[misc]

    def end(self) -> None:
        """Wait until the newest daemon has heard of another step of each; cancel them."""
        steps = {job: self._step(job) for job in self.jobs}
        with suppress(TimeoutError):  # the figures tell of it
            until(lambda: all(self._step(job) > steps[job] for job in self.jobs), HEARD_S, "their next steps")
        for job in self.jobs:
            self._server.ok("POST", f"/v1/jobs/{job}/cancel")

    def _step(self, job: str) -> int:
        return int((self._server.job(job)["progress"] or {}).get("current_step", 0))


def lived_over(events: Sequence[Event]) -> int:
    """How many attempts told of a step after a start of the daemon that came after their own."""
    began: dict[str, int] = {}  # of the newest attempt of each job
    lived: set[tuple[str, int]] = set()
    restarted = 0
    for event in events:
        job = event["stream"]
        if event["type"] == "daemon.started":
            restarted = event["seq"]
        elif event["type"] == "attempt.started":
            began[job] = event["seq"]
        elif event["type"] == "job.progress" and began[job] < restarted:
            lived.add((job, began[job]))
        elif event["type"] == "attempt.ended" and event["data"]["outcome"] in DEAD:
            lived.discard((job, began.get(job, 0)))
    return len(lived)


def died(events: Sequence[Event]) -> list[str]:
    """Attempts that were up, were told by nobody to crash, and ended as if they had."""
    crashing = {
        event["stream"]
        for event in events
        if event["type"] == "job.submitted" and "crash_at" in event["data"]["params"]
    }
    up = {
        (event["stream"], event["data"]["attempt"]) for event in events if event["type"] == "attempt.started"
    }
    return [
        f"{event['stream']}: attempt {event['data']['attempt']} is {event['data']['outcome']}: {event['data']['cause']}"
        for event in events
        if event["type"] == "attempt.ended"
        and event["data"]["outcome"] in DEAD
        and (event["stream"], event["data"]["attempt"]) in up
        and event["stream"] not in crashing
    ]


def figures_of(events: Sequence[Sequence[Event]]) -> list[Figure]:
    """Over the logs of several daemons: that attempts lived over kills, and that none died of one."""
    lived = sum(map(lived_over, events))
    return [
        some("attempts that went on over kills of the daemon", lived),
        none_of("healthy attempts that ended lost or crashed", sum(len(died(each)) for each in events)),
    ]


DEAD = frozenset({"lost", "crashed", "stalled", "failed"})
