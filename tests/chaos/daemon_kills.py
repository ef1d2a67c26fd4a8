"""The daemon is killed again and again: under load, and while it starts."""

from __future__ import annotations

import time
from functools import partial

from tests.chaos.report import Figure, Row, none_of
from tests.chaos.scenario import CORES, Scenario, Task, side_by_side
from tests.chaos.survivors import Survivors, died, figures_of
from tests.chaos.world import Reckoning, World, details, figures

LIFE_S = 0.8  # it lives for at most so long once it is ready
LONG = 2  # jobs of each daemon that run all the time
SLOTS = LONG + 1


def run(task: Task) -> Row:
    """Kill as often as the task says, over daemons side by side."""
    # One daemon more than cores: each of them sleeps for a part of its life.
    found = side_by_side([partial(_world, task, *share) for share in enumerate(task.shares(CORES + 1))])
    worlds = [each for each, _ in found]
    failed = [each for world in worlds for each in world.failed]
    row = Row(NAME, f"{task.amount:,} SIGKILLs of the daemon under load")
    row.figures = [
        Figure("kills while it started", sum(early for _, early in found)),
        *figures_of([each.events for each in worlds]),
        none_of("jobs failed", failed),
        *figures(worlds),
    ]
    row.details = [*(each for world in worlds for each in died(world.events)), *failed, *details(worlds)]
    return row


def _world(task: Task, number: int, kills: int) -> tuple[Reckoning, int]:
    early = 0
    with World(task, number, slots=SLOTS) as world:
        world.watch(2)
        long = Survivors(world.server.start(), LONG)
        with world.load(2):
            for kill in range(kills):
                if kill:
                    world.server.begin()
                if world.chance.random() < 0.2:
                    time.sleep(world.chance.uniform(0, 1))
                    early += not world.server.is_ready()
                else:
                    world.server.await_ready()
                    time.sleep(world.chance.uniform(0, LIFE_S))
                world.server.kill()
            world.server.start()
        long.end()
        return world.reckon(), early


NAME = "daemon-kills"
SCENARIO = Scenario(name=NAME, full=1_000, run=run, least=4)
