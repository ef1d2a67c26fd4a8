"""The runner, the trainer's small parent, is killed first: no second trainer beside the first, no end without proof."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.chaos import processes
from tests.chaos.report import Figure, Row, all_of, none_of
from tests.chaos.scenario import Scenario, Task, side_by_side
from tests.chaos.world import Reckoning, World, details, figures

SLOTS = 3
KILLS_OF_A_JOB = 2  # then it may come to its end: waiting out its backoffs would take the rest of the time
OPEN = 12  # jobs at once; most of them wait for their backoff

Event = Mapping[str, Any]


class Hunt:
    """Follows one daemon's log; kills each runner soon after it is up, and looks whether an end was proven."""

    def __init__(self, world: World, kills: int) -> None:
        self.lost = 0
        self.unproven: list[str] = []
        self._world = world
        self._wanted = kills
        self._chance = world.fork()
        self._chosen: dict[str, set[int]] = {}  # attempts of each job whose runners are to be killed
        self._killed: set[tuple[str, int]] = set()
        self._missed: set[tuple[str, int]] = set()  # they had ended by themselves when it came to that
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    @property
    def kills(self) -> int:
        """Runners that were killed before their work was at its end."""
        with self._lock:
            return len(self._killed - self._missed)

    @property
    def missed(self) -> int:
        """Attempts that came to their end before their kill: others are killed in their place."""
        return len(self._missed)

    def run(self) -> None:
        """Hunt until there were enough kills."""
        server, last, opened = self._world.server, 0, 0
        deadline = time.monotonic() + 60 + 20 * self._wanted
        while self.kills < self._wanted or self.lost < self.kills:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.kills} kills and {self.lost} lost attempts, {self._wanted} were wanted"
                )
            ends = sum(1 for job in server.jobs() if job["state"] == "succeeded")
            while opened - ends < OPEN and (opened - self.missed) * KILLS_OF_A_JOB < self._wanted:
                self._submit()
                opened += 1
            page = server.ok("GET", f"/v1/events?limit=1000&after={last}")
            for event in page["data"]:
                self._take(event)
                last = event["seq"]
            time.sleep(0.02)
        for thread in self._threads:
            thread.join()

    def _submit(self) -> None:
        params = {"steps": 40, "step_seconds": 0.1, "checkpoint_every": 5, "spawn_children": 1}
        self._world.server.ok("POST", "/v1/jobs", {"kind": "quick", "params": params, "max_attempts": 6})

    def _take(self, event: Event) -> None:
        job = event["stream"].removeprefix("job/")
        number = event["data"].get("attempt")
        if event["type"] == "attempt.launched" and self._is_chosen(job):
            self._chosen[job].add(number)
            chance = random.Random(self._chance.getrandbits(64))
            thread = threading.Thread(target=self._kill, args=(event["data"]["pid"], job, number, chance))
            thread.start()
            self._threads.append(thread)
        elif event["type"] == "attempt.ended" and number in self._chosen.get(job, ()):
            self._look_at(job, number, event["data"]["outcome"])

    def _is_chosen(self, job: str) -> bool:
        """Whether the runner of a job's next attempt is to be killed."""
        chosen = sum(map(len, self._chosen.values())) - self.missed
        return len(self._chosen.setdefault(job, set())) < KILLS_OF_A_JOB and chosen < self._wanted

    def _look_at(self, job: str, number: int, outcome: str) -> None:
        """Whether the end of an attempt is proven: its processes are gone, and only a record tells of a success."""
        record = self._world.server.jobs_dir / job / "attempts" / str(number) / "exit.json"
        if outcome == "lost":
            self.lost += 1
        elif outcome == "succeeded" and record.exists():
            with self._lock:
                self._missed.add((job, number))
        else:
            self.unproven.append(f"{job}: attempt {number} is {outcome}, not lost")
        alive = [each for each in processes.marked({job}) if each.attempt == number]
        if alive:
            self.unproven.append(f"{job}: attempt {number} was called {outcome} while {alive} lived")

    def _kill(self, pid: int, job: str, number: int, chance: random.Random) -> None:
        time.sleep(chance.uniform(0, 1.5))
        if chance.random() < 0.3:  # what cannot die by itself, or be told to
            for each in processes.marked({job}):
                processes.kill(each.pid, signal.SIGSTOP)
        there = processes.kill(pid)
        with self._lock:
            (self._killed if there else self._missed).add((job, number))


def run(task: Task) -> Row:
    """Kill as many runners as the task says."""
    found = side_by_side([partial(_world, task, *share) for share in enumerate(task.shares())])
    hunts = [hunt for _, hunt in found]
    kills = sum(hunt.kills for hunt in hunts)
    unproven = [each for hunt in hunts for each in hunt.unproven]
    row = Row(NAME, f"{kills:,} SIGKILLs of the runner before its trainer, which was stopped in three of ten")
    row.figures = [
        Figure("kills wanted", task.amount, kills == task.amount),
        Figure("attempts that had ended before their kill", sum(hunt.missed for hunt in hunts)),
        all_of("attempts lost, and tried again", sum(hunt.lost for hunt in hunts), kills),
        none_of("called lost without proof", unproven),
        *figures([each for each, _ in found]),
    ]
    row.details = [*unproven, *details([each for each, _ in found])]
    return row


def _world(task: Task, number: int, kills: int) -> tuple[Reckoning, Hunt]:
    with World(task, number, slots=SLOTS) as world:
        world.twins.pause_s = 0.03
        world.server.start()
        world.watch(1)
        hunt = Hunt(world, kills)
        hunt.run()
        return world.reckon(), hunt


NAME = "runner-kills"
SCENARIO = Scenario(name=NAME, full=200, run=run, least=4)
