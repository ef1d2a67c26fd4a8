"""Batches whose daemon, engine, worker and runner are killed: each request has exactly one line in the end."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.chaos import processes
from tests.chaos.report import Figure, Row, all_of, none_of, some
from tests.chaos.scenario import Scenario, Task, side_by_side
from tests.chaos.server import AWAY, ENDED, Server

ROWS: Final = 240
TOKEN_S: Final = (
    0.01  # of the engine, which answers eight requests at once: a batch takes a second or two of its time
)
OPEN: Final = 4  # batches at once: their backoffs overlap
KILLS_OF_EACH: Final = (
    2  # of a batch's engine, and of its worker: then it may come to its end, and its tries are not used up
)
CANCELLED: Final = 5  # one batch of so many is cancelled in the middle
REFUSED: Final = 10  # one request of so many is refused by the engine
URL: Final = "/v1/completions"


@dataclass(slots=True, eq=False)
class Batch:
    """One batch, what was killed of it, and what is wrong with what it gave."""

    job: str
    is_cancelled: bool
    killed: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    lines: Counter[str] = field(default_factory=Counter)
    asked_for_end: bool = False
    has_ended: bool = False


class Hunt:
    """Runs batches on one daemon and kills what works for them, until there were enough kills and one was cancelled."""

    def __init__(self, server: Server, chance: random.Random, wanted: int, scratch: Path) -> None:
        self.batches: list[Batch] = []
        self.killed: Counter[str] = Counter()
        self._server = server
        self._chance = chance
        self._wanted = wanted
        self._scratch = scratch
        self._deadline = time.monotonic() + 120 + 20 * wanted

    def run(self) -> None:
        """Hunt, wait for the batches' ends, and look at what they gave."""
        while self.killed.total() < self._wanted or not any(each.asked_for_end for each in self.batches):
            self._look()
            while len(self._open()) < OPEN:
                self._submit()
            time.sleep(self._chance.uniform(0.05, 0.6))
            self._strike()
        while self._open():
            self._look()
            time.sleep(0.1)
        for batch in self.batches:
            self._judge(batch)

    def _open(self) -> list[Batch]:
        return [batch for batch in self.batches if not batch.has_ended]

    def _submit(self) -> None:
        number = len(self.batches)
        model = self._scratch / f"model-{number}"  # an engine of its own: its tries are, too
        model.mkdir()
        path = self._scratch / f"in-{number}.jsonl"
        path.write_text("".join(f"{json.dumps(each)}\n" for each in requests(str(model))), encoding="utf-8")
        params = {
            "input": str(path),
            "model": str(model),
            "endpoint": URL,
            "engine": "fake-engine",
            "engine_options": {"token_seconds": TOKEN_S, "devices": 0},
            "window": 32,
        }
        job = self._server.ok("POST", "/v1/jobs", {"kind": "batch", "params": params, "max_attempts": 50})
        self.batches.append(Batch(job["id"], is_cancelled=number % CANCELLED == 0))

    def _look(self) -> None:
        """Note which have ended, and cancel those that are to be once they have some results."""
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"{self.killed.total()} kills, {len(self._open())} batches open")
        for batch in self._open():
            job = self._server.job(batch.job)
            batch.has_ended = job["state"] in ENDED
            done = (job["progress"] or {}).get("completed") or 0
            if batch.is_cancelled and not batch.asked_for_end and done > 0 and not batch.has_ended:
                self._server.request("POST", f"/v1/jobs/{batch.job}/cancel", {})
                batch.asked_for_end = True

    def _strike(self) -> None:
        """Kill the daemon, or something that works for one of the batches."""
        victim = self._chance.choice(("daemon", "engine", "worker", "runner"))
        if (
            victim == "daemon" and self.killed["daemon"] * 3 <= self.killed.total()
        ):  # the others have their turn
            self._server.kill()
            self.killed["daemon"] += 1
            self._server.start()
        if victim == "daemon":
            return
        batch = self._chance.choice(self._open())
        what = "engine" if victim == "engine" else "worker"
        if batch.killed[what] >= KILLS_OF_EACH:
            return
        pid = self._pid(batch, victim)
        if pid is not None and processes.kill(pid):
            batch.killed[what] += 1
            self.killed[victim] += 1

    def _pid(self, batch: Batch, victim: str) -> int | None:
        """The process to kill, if it is there and at work."""
        job_id: str | None = batch.job
        if victim == "engine":
            model = self._scratch / f"model-{self.batches.index(batch)}"
            engines = self._server.ok("GET", "/v1/jobs?kind=fake-engine&limit=500")["data"]
            job_id = next((each["id"] for each in engines if each["params"]["model"] == str(model)), None)
        if job_id is None:
            return None
        if victim == "runner":
            attempts = self._server.job(job_id)["attempts"]
            return attempts[-1]["pid"] if attempts and attempts[-1]["ended_at"] is None else None
        found = processes.marked({job_id})
        return self._chance.choice(found).pid if found else None

    def _judge(self, batch: Batch) -> None:
        """Whether each request has exactly one line, and the right one."""
        job = self._server.job(batch.job)
        wanted = {"cancelled", "succeeded"} if batch.asked_for_end else {"succeeded"}
        if job["state"] not in wanted:
            batch.problems.append(f"{batch.job} has {job['state']}: {job['error']}")
        for name in self._names(batch):
            text = self._server.ok("GET", f"/v1/jobs/{batch.job}/artifacts/{name}/files/{name}")
            for line in text.splitlines():
                told = json.loads(line)
                batch.lines[told["custom_id"]] += 1
                if (why := wrong(told, name)) is not None:
                    batch.problems.append(f"{batch.job}: {why}")

    def _names(self, batch: Batch) -> set[str]:
        listed = self._server.ok("GET", f"/v1/jobs/{batch.job}/artifacts")["data"]
        return {each["name"] for each in listed}


def requests(model: str) -> Iterator[dict[str, Any]]:
    """The requests of a batch; the engine refuses one of ten."""
    for number in range(ROWS):
        body: dict[str, Any] = {"model": model, "prompt": f"say {number} " + "again " * (number % 7)}
        if number % REFUSED == 0:
            body["temperature"] = 9
        yield {"custom_id": f"row-{number}", "method": "POST", "url": URL, "body": body}


def wrong(line: dict[str, Any], name: str) -> str | None:
    """What is wrong with a line of a file; nothing if it is the answer to its request, or says why there is none."""
    number = int(line["custom_id"].removeprefix("row-"))
    response = line["response"]
    if response is None:
        return (
            None
            if line["error"]["code"] == "batch_cancelled" and name.endswith("_error.jsonl")
            else str(line)
        )
    if number % REFUSED == 0:
        return None if response["status_code"] == 400 and name.endswith("_error.jsonl") else str(line)
    text = response["body"]["choices"][0]["text"] if response["status_code"] == 200 else None
    said = " ".join(["say", str(number), *["again"] * (number % 7)])
    return None if text == said and name.endswith("_output.jsonl") else str(line)


def run(task: Task) -> Row:
    """Kill as often as the task says."""
    found = side_by_side([partial(_hunt, task, *share) for share in enumerate(task.shares())])
    hunts = [hunt for hunt, _ in found]
    batches = [batch for hunt in hunts for batch in hunt.batches]
    killed: Counter[str] = Counter()
    for hunt in hunts:
        killed += hunt.killed
    listed = ", ".join(f"{killed[each]} of the {each}" for each in ("daemon", "engine", "worker", "runner"))
    every = {f"row-{number}" for number in range(ROWS)}
    row = Row(NAME, f"{killed.total():,} SIGKILLs during {len(batches)} batches of {ROWS} requests: {listed}")
    problems = [each for batch in batches for each in batch.problems]
    broken = [each for _, each in found if each is not None]
    row.figures = [
        Figure("kills wanted", task.amount, killed.total() >= task.amount),
        all_of(
            "requests with exactly one line",
            sum(count == 1 for batch in batches for count in batch.lines.values()),
            len(batches) * ROWS,
        ),
        none_of("missing", sum(len(every - set(batch.lines)) for batch in batches)),
        none_of("twice", sum(count > 1 for batch in batches for count in batch.lines.values())),
        none_of("wrong lines, or batches that failed", problems),
        some("batches cancelled on the way", sum(batch.asked_for_end for batch in batches)),
        none_of("logs that do not verify", broken),
    ]
    row.details = [*problems, *broken]
    return row


def _hunt(task: Task, number: int, kills: int) -> tuple[Hunt, str | None]:
    scratch = task.scratch / str(number)
    scratch.mkdir()
    with Server(slots=2, environment={}) as server:
        server.environment["FINETUNED_EXTRA_PLUGINS"] += ",finetuned_sdk.fake_engine"
        server.start()
        hunt = Hunt(server, task.chance("batches", number), kills, scratch)
        try:
            hunt.run()
        except AWAY as error:
            raise RuntimeError(f"the daemon was away when nobody had killed it: {error!r}") from error
        report = server.ok("POST", "/v1/log/verify", {})
        rebuilt = server.ok("POST", "/v1/log/rebuild", {})
        sound = report["ok"] and rebuilt["equal"]
        return hunt, None if sound else f"{report} {rebuilt}"


NAME = "batch-kills"
SCENARIO = Scenario(name=NAME, full=200, run=run, least=6)
