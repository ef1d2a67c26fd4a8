"""Clients of the event stream are cut, also in the middle of an event, and go on where they were."""

from __future__ import annotations

from tests.chaos.report import Figure, Row
from tests.chaos.scenario import Scenario, Task
from tests.chaos.server import until
from tests.chaos.world import World, details, figures

CLIENTS = 10
LIFE_S = 0.6  # a connection lives for at most so long


def run(task: Task) -> Row:
    """Cut as often as the task says, over ten clients."""
    clients = min(CLIENTS, task.amount)
    with World(task) as world:
        world.server.start()
        with world.load(2):
            watchers = world.watch(clients, life_s=LIFE_S, cuts=task.amount // clients)
            until(lambda: all(each.is_done for each in watchers), 30 + task.amount, "the cuts")
        found = world.reckon()
    cuts = sum(each.cuts for each in watchers)
    row = Row(
        NAME, f"{cuts:,} cuts of {clients} clients of the event stream", figures([found]), details([found])
    )
    row.figures.insert(0, Figure("events shown in all", sum(len(each.seen) for each in watchers)))
    return row


NAME = "cut-clients"
SCENARIO = Scenario(name=NAME, full=1_000, run=run, least=10)
