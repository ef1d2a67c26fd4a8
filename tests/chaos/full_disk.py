"""The disk is filled to the last byte under load, and freed: nothing is lost, and nobody has to do anything."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress

from tests import small_disk
from tests.chaos.disk import Disk
from tests.chaos.load import Request
from tests.chaos.report import Figure, Row, all_of, none_of, some
from tests.chaos.scenario import Scenario, Task
from tests.chaos.server import until
from tests.chaos.world import Event, World, details, figures

FULL_S = (0.2, 1.5)  # how long it is full
FREE_S = (0.5, 1.5)  # and how long it is not
STEP_S = 120.0  # for the first step of all, on a busy machine
MET_S = 30.0  # the first time it stays full until an attempt has met it


MEGABYTES = 128


MET = "attempts that met the full disk, and were tried again"
MANY_FILLS = 10  # from so many on it is no chance any more whether one does


def run(task: Task) -> Row:
    """Fill the disk as often as the task says."""
    if not small_disk.is_possible():
        return Row(NAME, "not run: a tmpfs cannot be mounted here (root can)", skipped=True)
    with World(task) as world, Disk(world.server.state, MEGABYTES) as disk:
        world.server.start()
        daemon = world.server.process
        assert daemon is not None
        world.watch(2)
        with world.load(2, make=writing_job):
            for fill in range(task.amount):
                time.sleep(world.chance.uniform(*FREE_S))
                if not fill:
                    until(lambda: any(map(world.server.steps, world.history.submitted())), STEP_S, "a step")
                disk.fill()
                disk.ask(world.server)
                time.sleep(world.chance.uniform(*FULL_S))
                if not fill:
                    with suppress(TimeoutError):  # the figure tells of it
                        until(lambda: met(world.server.events()), MET_S, "an attempt to meet the full disk")
                disk.free()
        by_itself = daemon.poll() is None
        found = world.reckon()
        world.server.kill()
    refused = sum(status == 507 for each in world.history.operations for status, _ in each.answers)
    row = Row(
        NAME,
        f"the disk (a tmpfs of {MEGABYTES} MiB) filled to the last byte and freed {disk.fills} times under load",
    )
    row.figures = [
        none_of("manual steps", 0 if by_itself else 1),
        Figure("requests of clients refused for want of room", refused),
        all_of("jobs asked for on the full disk, and refused", disk.refused, disk.fills),
        some(MET, met(found.events)) if disk.fills >= MANY_FILLS else Figure(MET, met(found.events)),
        none_of("jobs failed", found.failed),
        *figures([found]),
    ]
    row.details = [*found.failed, *details([found])]
    return row


def met(events: Sequence[Event]) -> int:
    """How many attempts ended of the full disk."""
    ends = [event["data"] for event in events if event["type"] == "attempt.ended"]
    return sum(end.get("failure") == "disk_full" for end in ends)


def writing_job(chance: random.Random) -> Request:
    """A job that saves at each step, and so is likely to meet the full disk."""
    params = {
        "steps": chance.randint(5, 25),
        "step_seconds": 0.1,
        "checkpoint_every": 1,
        "checkpoint_bytes": chance.choice((1_000, 20_000)),
        "output_lines": 20,
    }
    return "quick", params, {"max_attempts": 6}


NAME = "full-disk"
SCENARIO = Scenario(name=NAME, full=20, run=run, least=2)
