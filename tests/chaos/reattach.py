"""The daemon is killed while trainers run: the next one finds them all at once, and nothing of them is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.report import Figure, Row, all_of, below, none_of
from tests.chaos.scenario import Scenario, Task
from tests.chaos.server import Server, until
from tests.chaos.world import World, details, figures

TRAINERS = 8
STEP_S = 0.2  # slow enough for every step to be reported, and for eight trainers not to need the cores
LINES = 3  # printed at each step
LIMIT_S = 2.0
FULL = 20  # at fewer kills, in a quick look at a busy machine, the time is only told
FOUND_S = 60.0

Event = Mapping[str, Any]


def run(task: Task) -> Row:
    """Kill the daemon under eight trainers as often as the task says."""
    with World(task, slots=TRAINERS) as world:
        server = world.server.start()
        params: dict[str, Any] = {"steps": 1_000_000, "step_seconds": STEP_S, "output_lines": LINES}
        jobs = [server.submit("quick", **params) for _ in range(TRAINERS)]
        until(lambda: all(server.steps(job) for job in jobs), 120, "all trainers' first step")
        taken = [_kill_and_return(world, server, jobs) for _ in range(task.amount)]
        _stop(server, jobs)
        steps = sum(len(server.steps(job)) for job in jobs)
        lost = [problem for job in jobs for problem in _lost(server, job)]
        attempts = [server.job(job)["attempt"] for job in jobs]
        found = world.reckon()
    slowest = max(seconds for seconds, _ in taken)
    row = Row(NAME, f"the daemon killed {task.amount} times while {TRAINERS} trainers ran")
    row.figures = [
        all_of(
            "trainers found again and watched on", sum(again for _, again in taken), task.amount * TRAINERS
        ),
        below(
            f"s from the new daemon's exec to the slowest (limit {LIMIT_S:g} s)",
            slowest,
            LIMIT_S,
            is_demanded=task.amount >= FULL,
        ),
        none_of("second attempts", sum(number != 1 for number in attempts)),
        Figure("steps", steps),
        none_of("steps, metrics or log lines lost or repeated", lost),
        *figures([found]),
    ]
    row.details = [*lost, *details([found])]
    return row


def _kill_and_return(world: World, server: Server, jobs: Sequence[str]) -> tuple[float, int]:
    """Seconds from the start of the next daemon until it has told news of all trainers, and of how many it did."""
    before = {job: max(server.steps(job)) for job in jobs}
    server.kill()
    time.sleep(world.chance.uniform(0, 1))
    began = time.monotonic()
    server.start()
    last = server.events()[-1]["seq"]  # what was read while it started is news, too: it is told of by then
    newer = {job for job in jobs if max(server.steps(job)) > before[job]}
    while len(newer) < len(jobs) and time.monotonic() < began + FOUND_S:
        page = server.ok("GET", f"/v1/events?limit=1000&types=job.progress&after={last}")["data"]
        newer |= {event["stream"].removeprefix("job/") for event in page}
        last = page[-1]["seq"] if page else last
        time.sleep(0.01)
    return time.monotonic() - began, len(newer)


def _stop(server: Server, jobs: Sequence[str]) -> None:
    """Have the trainers leave after a step, all of which is told and printed then."""
    for job in jobs:
        server.ok("POST", f"/v1/jobs/{job}/pause", {})
    for job in jobs:
        server.wait_for(job, "paused", timeout=120)
        server.ok("POST", f"/v1/jobs/{job}/cancel", {})


def _lost(server: Server, job: str) -> list[str]:
    """What the log and the output lack, or have twice, of what the trainer did."""
    found: list[str] = []
    told = server.steps(job)
    spool = server.jobs_dir / job / "attempts" / "1" / "spool.ndjson"
    said = [json.loads(line[line.index("{") :]) for line in spool.read_text(encoding="utf-8").splitlines()]
    reported = [line["data"]["current_step"] for line in said if line.get("type") == "progress"]
    if told != reported:
        found.append(f"{job}: the log tells of {len(told)} steps, the trainer of {len(reported)}")
    if told != list(range(1, len(told) + 1)):
        found.append(f"{job}: a step is told twice, or not at all")
    status, output = server.request("GET", f"/v1/jobs/{job}/logs")
    wanted = [f"step {step} line {line}" for step in told for line in range(LINES)]
    if status != 200 or output.splitlines() != wanted:
        found.append(f"{job}: {len(output.splitlines())} lines of output instead of {len(wanted)}")
    return found


NAME = "reattach"
SCENARIO = Scenario(name=NAME, full=FULL, run=run)
