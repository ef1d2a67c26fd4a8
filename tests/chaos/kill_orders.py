"""Daemon, runner, trainer and the trainer's child are killed in every order: nothing of their group is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations

from tests.chaos import processes
from tests.chaos.report import Row, all_of, below, none_of
from tests.chaos.scenario import Scenario, Task, side_by_side
from tests.chaos.server import Server, until
from tests.chaos.tiny import Tiny
from tests.chaos.world import Reckoning, World, details, figures

PARTS = ("daemon", "runner", "trainer", "child")
#: from the last kill, or from when the next daemon is ready; demanded where all orders are tried
GONE_S = 10.0
LEFT_S = 60.0  # what is there after so long stays, however slow the machine is

#: every order of every choice of these that takes the runner or the trainer along: otherwise nothing has to end
ORDERS = tuple(
    order
    for length in range(1, len(PARTS) + 1)
    for order in permutations(PARTS, length)
    if {"runner", "trainer"} & set(order)
)
WHOLE = tuple(permutations(PARTS))  # these are tried on real trainers with loader processes, too


@dataclass(slots=True)
class Tried:
    """What came of the orders: how long the group took to go, in seconds, and what was left."""

    gone_s: list[float] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def run(task: Task) -> Row:
    """Try as many orders as the task says; at full length all, those of all four parts also on real trainers."""
    everything = [("quick", order) for order in ORDERS] + [("sft", order) for order in WHOLE]
    chosen = (
        everything
        if task.amount >= len(everything)
        else task.chance("orders").sample(everything, task.amount)
    )
    tiny = Tiny(task.scratch) if any(kind == "sft" for kind, _ in chosen) else None
    shares = [chosen[start :: len(task.shares())] for start in range(len(task.shares()))]
    found = side_by_side([partial(_world, task, number, share, tiny) for number, share in enumerate(shares)])
    tried = [each for _, each in found]
    gone = [seconds for each in tried for seconds in each.gone_s]
    left = [problem for each in tried for problem in each.left]
    real = sum(kind == "sft" for kind, _ in chosen)
    row = Row(NAME, f"{len(chosen)} orders of killing {', '.join(PARTS)}; {real} of them on real trainers")
    row.figures = [
        all_of("groups gone", len(gone), len(chosen)),
        below(
            f"s for the slowest (limit {GONE_S:g} s)",
            max(gone, default=GONE_S),
            GONE_S,
            is_demanded=len(chosen) == len(everything),
        ),
        none_of("processes of a group left", left),
        *figures([each for each, _ in found]),
    ]
    row.details = [*left, *details([each for each, _ in found])]
    return row


def _world(
    task: Task, number: int, orders: Sequence[tuple[str, tuple[str, ...]]], tiny: Tiny | None
) -> tuple[Reckoning, Tried]:
    tried = Tried()
    with World(task, number, slots=1) as world:
        world.server.start()
        for kind, order in orders:
            _try(world, kind, order, tiny, tried)
        return world.reckon(), tried


def _try(world: World, kind: str, order: tuple[str, ...], tiny: Tiny | None, tried: Tried) -> None:
    server = world.server
    if kind == "quick":
        params = {"steps": 10_000, "step_seconds": 0.1, "spawn_children": 1}
    else:
        assert tiny is not None
        params = tiny.params(max_steps=100_000, save_steps=50_000, dataloader_num_workers=1)
    job = str(server.ok("POST", "/v1/jobs", {"kind": kind, "params": params, "max_attempts": 1})["id"])
    until(lambda: server.steps(job), 90, f"a step of {job}")
    parts = _parts(server, job)
    for part in order:
        parts[part]()
        time.sleep(world.chance.choice((0.0, 0.0, 0.02, 0.2)))
    if "daemon" in order:
        server.start()  # what a runner that was killed left is its to find
    began = time.monotonic()
    try:
        until(lambda: not _group(server, job), LEFT_S, "the group's end")
        tried.gone_s.append(time.monotonic() - began)
    except TimeoutError:
        tried.left.append(f"{kind}, {' then '.join(order)}: {_group(server, job)} left after {LEFT_S:g} s")
        server.ok("POST", f"/v1/jobs/{job}/cancel")
    server.settle(30)


def _parts(server: Server, job: str) -> dict[str, Callable[[], object]]:
    """How to kill each part of a job's group."""
    until(lambda: len(processes.marked({job})) > 1, 30, f"the children of {job}")
    group = processes.marked({job})
    (runner,) = processes.runners(server.jobs_dir / job)
    (trainer,) = [each.pid for each in group if each.is_worker and processes.parent(each.pid) == runner]
    children = [each.pid for each in group if each.pid != trainer]
    return {
        "daemon": server.kill,
        "runner": partial(processes.kill, runner),
        "trainer": partial(processes.kill, trainer),
        "child": partial(processes.kill, children[0]),
    }


def _group(server: Server, job: str) -> list[int]:
    return [*(each.pid for each in processes.marked({job})), *processes.runners(server.jobs_dir / job)]


NAME = "kill-orders"
SCENARIO = Scenario(name=NAME, full=len(ORDERS) + len(WHOLE), run=run, least=4)
