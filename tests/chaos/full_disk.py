"""The disk is filled to the last byte under load, and freed: nothing is lost, and nobody has to do anything."""

from __future__ import annotations

import random
import time

from tests.chaos.disk import Disk
from tests.chaos.load import Request
from tests.chaos.report import Figure, Row, none_of
from tests.chaos.scenario import Scenario, Task
from tests.chaos.world import World, details, figures

FULL_S = (0.2, 1.5)  # how long it is full
FREE_S = (0.5, 1.5)  # and how long it is not


MEGABYTES = 128


def run(task: Task) -> Row:
    """Fill the disk as often as the task says."""
    if not Disk.is_possible():
        return Row(NAME, "not run: a tmpfs cannot be mounted here (root can)", skipped=True)
    with World(task) as world, Disk(world.server.state, MEGABYTES) as disk:
        world.server.start()
        daemon = world.server.process
        assert daemon is not None
        world.watch(2)
        with world.load(2, make=_writing_job):
            for _ in range(task.amount):
                time.sleep(world.chance.uniform(*FREE_S))
                disk.fill()
                time.sleep(world.chance.uniform(*FULL_S))
                disk.free()
        by_itself = daemon.poll() is None
        found = world.reckon()
        world.server.kill()
    ends = [event["data"] for event in found.events if event["type"] == "job.failed"]
    full = sum(
        event["data"].get("failure") == "disk_full"
        for event in found.events
        if event["type"] == "attempt.ended"
    )
    refused = sum(status == 507 for each in world.history.operations for status, _ in each.answers)
    row = Row(
        NAME,
        f"the disk (a tmpfs of {MEGABYTES} MiB) filled to the last byte and freed {disk.fills} times under load",
    )
    row.figures = [
        none_of("manual steps", 0 if by_itself else 1),
        Figure("requests refused for want of room", refused),
        Figure("attempts that met the full disk, and were tried again", full),
        none_of("jobs failed", ends),
        *figures([found]),
    ]
    row.details = [*details([found]), *(f"failed: {end['code']}: {end['message'][:300]}" for end in ends)]
    return row


def _writing_job(chance: random.Random) -> Request:
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
