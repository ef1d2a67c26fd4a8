"""Runners that claim their bundle against a daemon that gives up at that moment: exactly one wins."""

from __future__ import annotations

import anyio
from tests.chaos.report import Figure, Row, all_of
from tests.chaos.scenario import Scenario, Task
from tests.crash.attempts.test_races import Races

AT_ONCE = 4


def run(task: Task) -> Row:
    """Race as often as the task says; each race asserts that it has one winner."""
    races = Races(task.scratch, task.amount, seed=task.seed)
    anyio.run(_race, races)
    row = Row(NAME, f"{task.amount:,} races of a runner's claim against a daemon that gives up")
    row.figures = [
        all_of("races with exactly one winner", sum(races.wins.values()), task.amount),
        Figure("won by the runner", races.wins["runner"], races.wins["runner"] > 0),
        Figure("won by the daemon", races.wins["daemon"], races.wins["daemon"] > 0),
    ]
    return row


async def _race(races: Races) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(races.run)


NAME = "start-races"
SCENARIO = Scenario(name=NAME, full=2_000, run=run, least=20)
