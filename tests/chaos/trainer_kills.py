"""Real trainers are killed in the middle of a checkpoint; what resumes ends with the weights of a run in one go."""

from __future__ import annotations

import hashlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos import processes
from tests.chaos.notify import Arrivals
from tests.chaos.report import Figure, Row, all_of, none_of
from tests.chaos.scenario import CORES, Scenario, Task
from tests.chaos.server import until
from tests.chaos.tiny import Tiny
from tests.chaos.world import World, details, figures

from finetuned_sdk import manifest
from finetuned_sdk.errors import JobError

#: of few kills in all, of many: the backoff doubles with each, but other jobs run meanwhile; and each job costs a
#: validation and a last run beside those that are killed
KILLS_OF_A_JOB = (2, 6)
STEPS = 40  # a save each: enough for the checkpoints that are let through before all kills of a job
MANY = 20
SAVE_S = 0.08  # a checkpoint of the tiny model takes about so long; where in it the kill falls is chance
LATE = 0.4  # the share that is to be killed between a checkpoint's move and its manifest
TRIES_LATE = 3
STOPPED_S = 60.0

Event = Mapping[str, Any]


class Killer:
    """Stops a trainer when it saves, looks how far the checkpoint is, and kills it if it is in the middle."""

    def __init__(self, world: World, straight: str, kills: int, *, of_a_job: int) -> None:
        self.kills: Counter[str] = Counter()  # by what was there of the checkpoint
        self.resumed = 0
        self.problems: list[str] = []
        self._world = world
        self._straight = straight
        self._wanted = kills
        self._of_a_job = of_a_job
        self._tried: dict[str, int] = {}  # attempts of each job that were, or are being, killed
        self._killed: dict[str, dict[int, Path | None]] = {}  # by attempt: what the next one is to go on from
        self._starting: dict[str, Event] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def take(self, event: Event) -> None:
        """An event of the log, in order."""
        job, data = event["stream"].removeprefix("job/"), event["data"]
        if event["type"] == "attempt.starting":
            self._starting[job] = data
            before = data["attempt"] - 1
            if before in (killed := self._killed.get(job, {})):
                self._look_at(job, data, killed[before])
        elif event["type"] == "attempt.started" and self._may_kill(job):
            args = (job, data["attempt"], data["hello"]["pid"], self._world.fork())
            thread = threading.Thread(target=self._kill, args=args)
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Wait for the kills that are under way."""
        for thread in self._threads:
            thread.join()

    def _may_kill(self, job: str) -> bool:
        """Count an attempt that is to be killed; none of the straight run, and no validation, which saves nothing."""
        if job == self._straight or self._starting[job]["purpose"] != "run":
            return False
        tried = self._tried.get(job, 0)
        if tried >= self._of_a_job or sum(self._tried.values()) >= self._wanted:
            return False
        self._tried[job] = tried + 1
        return True

    def _look_at(self, job: str, data: Event, wanted: Path | None) -> None:
        """Whether the attempt after a kill goes on from the newest checkpoint of which every byte held then."""
        wrong = wrongly_resumed(data["resume_from"], wanted)
        if wrong is None:
            self.resumed += 1
        else:
            self.problems.append(f"{job}: attempt {data['attempt']} {wrong}")

    def _kill(self, job: str, attempt: int, pid: int, chance: random.Random) -> None:
        bundle = self._world.server.jobs_dir / job / "attempts" / str(attempt)
        home = bundle / "checkpoints"
        skipped = chance.randint(1, 2)  # so many checkpoints are let through: there is one to go on from
        late = (
            TRIES_LATE if chance.random() < LATE else 0
        )  # how often it is tried after the move, a narrow moment
        try:
            with Arrivals(bundle / "work", home) as arrivals:
                while processes.state(pid) not in {"", "Z"}:
                    for path in arrivals.next(1.0):
                        if not path.name.startswith("checkpoint-"):
                            continue
                        skipped -= path.parent == home
                        if skipped >= 0 or (late > 0) != (path.parent == home):
                            continue
                        late -= 1
                        pause_s = 0.0 if path.parent == home else chance.uniform(0, SAVE_S)
                        if self._stop_within(job, attempt, path.name, pid, pause_s):
                            return
        except OSError as error:
            self.problems.append(f"{job}: attempt {attempt}: {error}")
        self.problems.append(
            f"{job}: attempt {attempt} ended before it was caught in the middle of a checkpoint"
        )

    def _stop_within(self, job: str, attempt: int, name: str, pid: int, pause_s: float) -> bool:
        """Stop the trainer somewhere in its checkpoint; kill it if that is half made, else let it go on."""
        attempts = self._world.server.jobs_dir / job / "attempts"
        time.sleep(pause_s)
        processes.kill(pid, signal.SIGSTOP)
        until(lambda: processes.state(pid) in {"T", "Z", ""}, STOPPED_S, f"process {pid} to stop")
        found = half_made(attempts / str(attempt), name)
        if found is None:
            processes.kill(pid, signal.SIGCONT)
            return False
        with self._lock:
            self.kills[found] += 1
            self._killed.setdefault(job, {})[attempt] = newest_whole(attempts)
        processes.kill(pid)
        return True


def half_made(bundle: Path, name: str) -> str | None:
    """How far a checkpoint is that is not complete; ``None`` if it is, or was not begun."""
    if (bundle / "work" / name).exists():
        return "while its files were written"
    home = bundle / "checkpoints" / name
    if home.exists() and not manifest.manifest_path(home).exists():
        return "between its move and its manifest"
    return None


def newest_whole(attempts: Path) -> Path | None:
    """The checkpoint of the highest step, over a job's attempts, of which every byte holds; ``None`` without one."""
    found = [
        path
        for path in attempts.glob("*/checkpoints/checkpoint-*")
        if path.name.partition("-")[2].isdecimal()
    ]
    for path in sorted(found, key=lambda each: int(each.name.partition("-")[2]), reverse=True):
        try:
            manifest.verify(path)
        except JobError:
            continue
        return path
    return None


def wrongly_resumed(resume_from: str | None, wanted: Path | None) -> str | None:
    """What is wrong with where an attempt goes on, if the newest whole checkpoint at the kill was ``wanted``."""
    if wanted is None:
        return "follows a kill before which nothing was saved whole"
    if resume_from is None or Path(resume_from) != wanted:
        return f"goes on from {resume_from}, the newest whole checkpoint at the kill was {wanted}"
    try:
        manifest.verify(wanted)
    except JobError as error:
        return f"goes on from {wanted}: {error}"
    return None


def run(task: Task) -> Row:
    """Kill as many trainers as the task says, each in the middle of a checkpoint."""
    tiny = Tiny(task.scratch)
    of_a_job = KILLS_OF_A_JOB[task.amount >= MANY]
    count = -(-task.amount // of_a_job)
    with World(task, slots=CORES) as world:
        server = world.server.start()
        request = {"kind": "sft", "params": tiny.params(max_steps=STEPS), "max_attempts": of_a_job + 4}
        straight = str(server.ok("POST", "/v1/jobs", {**request, "priority": 10})["id"])
        jobs = [str(server.ok("POST", "/v1/jobs", request)["id"]) for _ in range(count)]
        killer, last = Killer(world, straight, task.amount, of_a_job=of_a_job), 0
        deadline = time.monotonic() + 120 + 60 * task.amount
        while any(job["state"] not in {"succeeded", "failed"} for job in server.jobs()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{killer.kills} after {deadline:g} s; {killer.problems[:5]}")
            page = server.ok("GET", f"/v1/events?limit=1000&after={last}")["data"]
            for event in page:
                killer.take(event)
                last = event["seq"]
            time.sleep(0.1)
        killer.join()
        wanted = _weights(server.jobs_dir / straight)
        equal = [job for job in jobs if wanted is not None and _weights(server.jobs_dir / job) == wanted]
        found = world.reckon()
    kills = sum(killer.kills.values())
    row = Row(NAME, f"{kills:,} SIGKILLs of a real trainer in the middle of a checkpoint, over {count} jobs")
    row.figures = [
        *(Figure(f"killed {where}", number) for where, number in sorted(killer.kills.items())),
        Figure("kills wanted", task.amount, kills == task.amount),
        all_of("kills after which the newest whole checkpoint was resumed from", killer.resumed, kills),
        all_of("jobs whose final weights equal the straight run's, bit by bit", len(equal), count),
        none_of("problems", killer.problems),
        *figures([found]),
    ]
    row.details = [*killer.problems, *details([found])]
    return row


def _weights(job_dir: Path) -> str | None:
    """The hash of the adapter that a job published; ``None`` if it did not."""
    found = list(job_dir.glob("attempts/*/artifacts/**/adapter_model.safetensors"))
    return hashlib.sha256(found[0].read_bytes()).hexdigest() if len(found) == 1 else None


NAME = "trainer-kills"
SCENARIO = Scenario(name=NAME, full=200, run=run, least=2)
