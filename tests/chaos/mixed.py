"""Everything at once: kills, stops, a full disk, a clock that jumps, cut clients, lost answers."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from tests import small_disk
from tests.chaos import processes
from tests.chaos.clock import Clock
from tests.chaos.disk import Disk
from tests.chaos.full_disk import met, writing_job
from tests.chaos.load import Request, short_job
from tests.chaos.report import Figure, Row, all_of, none_of, some
from tests.chaos.scenario import Scenario, Task
from tests.chaos.tiny import Tiny
from tests.chaos.world import Reckoning, World, details, figures

#: hours; keys of repeated requests are kept for a day of wall clock, so that two steps together stay below one
CLOCK_H = (-11, 11)
WRITING, REAL = 0.2, 0.1  # shares of the jobs
LONG_S = 120  # in so long a time some attempt meets one of the full disks


class Trouble:
    """What is done to one daemon and its attempts, by chance; each method does one thing and undoes it."""

    def __init__(self, world: World, clock: Clock | None, disk: Disk | None) -> None:
        self.done: Counter[str] = Counter()
        self._world = world
        self._chance = world.fork()
        self._clock = clock
        self._disk = disk
        self._kinds: tuple[tuple[str, int, Callable[[], bool]], ...] = (
            ("kills of the daemon", 4, self._kill_daemon),
            ("kills of runners", 2, self._kill_runner),
            ("kills of trainers", 3, self._kill_trainer),
            ("kills of trainers' children", 2, self._kill_child),
            ("stops of the daemon", 2, self._stop_daemon),
            ("stops of runners", 1, self._stop_runner),
            ("stops of trainers", 2, self._stop_trainer),
            ("full disks", 2, self._fill_disk),
            ("steps of the clock", 3, self._step_clock),
        )

    def cause(self) -> None:
        """Do one of them."""
        names = [name for name, _, _ in self._kinds]
        (name,) = self._chance.choices(names, [weight for _, weight, _ in self._kinds])
        action = next(each for kind, _, each in self._kinds if kind == name)
        self.done[name] += action()

    def _kill_daemon(self) -> bool:
        self._world.server.kill()
        time.sleep(self._chance.uniform(0, 0.5))
        self._world.server.start()
        return True

    def _stop_daemon(self) -> bool:
        self._world.server.signal(signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.1, 2))
        self._world.server.signal(signal.SIGCONT)
        return True

    def _kill_runner(self) -> bool:
        return self._one(self._runners(), signal.SIGKILL)

    def _stop_runner(self) -> bool:
        return self._one(self._runners(), signal.SIGSTOP)

    def _kill_trainer(self) -> bool:
        return self._one(self._marked(workers=True), signal.SIGKILL)

    def _stop_trainer(self) -> bool:
        return self._one(self._marked(workers=True), signal.SIGSTOP)

    def _kill_child(self) -> bool:
        return self._one(self._marked(workers=False), signal.SIGKILL)

    def _fill_disk(self) -> bool:
        if self._disk is None:
            return False
        self._disk.fill()
        self._disk.ask(self._world.server)
        time.sleep(self._chance.uniform(0.1, 1))
        self._disk.free()
        return True

    def _step_clock(self) -> bool:
        if self._clock is None:
            return False
        self._clock.step(3600 * self._chance.randint(*CLOCK_H))
        return True

    def _runners(self) -> list[int]:
        return processes.runners(self._world.server.jobs_dir)

    def _marked(self, *, workers: bool) -> list[int]:
        found = processes.marked(self._world.server.job_ids)
        return [each.pid for each in found if each.is_worker == workers]

    def _one(self, pids: list[int], number: signal.Signals) -> bool:
        if not pids:
            return False
        pid = self._chance.choice(sorted(pids))
        there = processes.kill(pid, number)
        if number is signal.SIGSTOP:
            time.sleep(self._chance.uniform(0.1, 2))
            processes.kill(pid, signal.SIGCONT)
        return there


def run(task: Task) -> Row:
    """Go on for as many seconds as the task says."""
    notes: list[str] = []
    tiny = Tiny(task.scratch)
    clock = _clock(task, notes)
    with ExitStack() as stack:
        world = stack.enter_context(World(task, environment=clock.environment if clock else None))
        disk = stack.enter_context(Disk(world.server.state, 256)) if small_disk.is_possible() else None
        if disk is None:
            notes.append("the disk was not filled: a tmpfs cannot be mounted here (root can)")
        world.server.start()
        world.watch(4)
        trouble = Trouble(world, clock, disk)
        with world.load(3, make=lambda chance: _job(chance, tiny)):
            end = time.monotonic() + task.amount
            while time.monotonic() < end:
                time.sleep(world.chance.uniform(0, 1))
                trouble.cause()
        found = world.reckon()
        world.server.kill()
    watched = [event["data"] for event in found.events if event["type"] == "attempt.intervened"]
    timed = [
        data for data in watched if data["failure"] is not None
    ]  # without one it is a cancellation's kill
    unspent = [each for each in found.failed if " failed: gave_up: " not in each]  # trainers are killed here
    row = Row(NAME, f"everything at once for {task.amount} s: " + _listed(trouble.done))
    row.figures = [
        Figure("cuts of clients", sum(each.cuts for each in world.watchers)),
        none_of("time-outs that the clock's steps set off", timed),
        *_of_disk(task, disk, found),
        none_of("jobs failed that had tries left", unspent),
        *figures([found]),
    ]
    row.details = [*notes, *map(str, timed), *unspent, *details([found])]
    return row


def _of_disk(task: Task, disk: Disk | None, found: Reckoning) -> list[Figure]:
    """That the disk was found full, if it was filled."""
    if disk is None or not disk.fills:
        return []
    what, count = "attempts that met the full disk, and were tried again", met(found.events)
    return [
        all_of("jobs asked for on the full disk, and refused", disk.refused, disk.fills),
        some(what, count) if task.amount >= LONG_S else Figure(what, count),
    ]


def _job(chance: random.Random, tiny: Tiny) -> Request:
    """A real training now and then, and now and then a job that saves at each step."""
    what = chance.random()
    if what < WRITING:
        return writing_job(chance)
    if what > 1 - REAL:
        return "sft", tiny.params(max_steps=8, save_steps=2, dataloader_num_workers=chance.randint(0, 1)), {}
    return short_job(chance)


def _clock(task: Task, notes: list[str]) -> Clock | None:
    try:
        return Clock(task.scratch)
    except OSError as error:
        notes.append(str(error))
        return None


def _listed(done: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in done.items() if number)


NAME = "mixed"
SCENARIO = Scenario(name=NAME, full=180, run=run, least=15)
