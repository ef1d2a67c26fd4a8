"""Building worlds for tests: events decided, numbered and folded, with no log behind them."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from typing import Any

from finetuned.domain import attempt_decisions, decisions, facts, verdicts
from finetuned.domain.job import Job
from finetuned.domain.world import World
from finetuned_events import Event, NewEvent


class Scene:
    """A world with a clock and a memory of every event that led to it."""

    def __init__(self, devices: int = 1) -> None:
        self.world = World()
        self.events: list[Event] = []
        self.now = 1_000_000
        self._versions: dict[str, itertools.count[int]] = {}
        slots = [
            {"id": f"cpu:{n}", "kind": "cpu", "name": f"slot {n}", "memory_bytes": 1} for n in range(devices)
        ]
        self.fold(decisions.devices_detected(self.world, slots))

    def fold(self, new: Sequence[NewEvent]) -> Sequence[NewEvent]:
        """Record and fold what was decided."""
        self.now += 1_000
        for each in new:
            version = next(self._versions.setdefault(each.stream, itertools.count(1)))
            event = Event(
                seq=len(self.events) + 1,
                stream=each.stream,
                version=version,
                type=each.type,
                schema=each.schema,
                at=self.now,
                actor=each.actor,
                cause=each.cause,
                data=each.data,
            )
            self.events.append(event)
            self.world.apply(event)
        return new

    def submit(self, job_id: str = "job-1", **changes: Any) -> Job:
        """Submit a job."""
        self.fold(decisions.submit(self.world, job_id, submission(**changes), actor="uid:1000"))
        return self.world.jobs[job_id]

    def schedule(self, *, backing_off: Container[str] = ()) -> None:
        """Start what may start: every backoff is over but those of the jobs that are named."""
        elapsed = {(job.id, len(job.attempts)) for job in self.world.live_jobs() if job.id not in backing_off}
        self.fold(decisions.schedule(self.world, elapsed=elapsed))

    def start(self, job_id: str = "job-1") -> int:
        """Let the job's newest attempt report for work; its number."""
        attempt = self.world.jobs[job_id].attempt
        assert attempt is not None
        self.report(job_id, facts.AttemptStarted(attempt=attempt.number))
        return attempt.number

    def report(
        self, job_id: str, fact: facts.Fact, *, line: int | None = None, attempt: int | None = None
    ) -> int:
        """Ingest one spool line; how many events came of it."""
        newest = self.world.jobs[job_id].attempt
        assert newest is not None
        report = attempt_decisions.Reported(line=newest.line + 1 if line is None else line, fact=fact)
        number = newest.number if attempt is None else attempt
        return len(self.fold(attempt_decisions.record(self.world, job_id, number, [report])))

    def end(
        self,
        job_id: str = "job-1",
        *,
        attempt: int | None = None,
        resume_from: str | None = None,
        step: int | None = None,
        reduced: dict[str, Any] | None = None,
        **how: Any,
    ) -> int:
        """Record the end of an attempt; how many events came of it."""
        newest = self.world.jobs[job_id].attempt
        assert newest is not None
        number = newest.number if attempt is None else attempt
        decided = attempt_decisions.ended(
            self.world,
            job_id,
            number,
            end(**how),
            attempt_decisions.Prospect(resume_from=resume_from, step=step, reduced=reduced, jitter=0.5),
        )
        return len(self.fold(decided))

    def run_to_success(self, job_id: str = "job-1", **values: Any) -> None:
        """Take a starting job to its result."""
        number = self.start(job_id)
        self.report(job_id, facts.AttemptResult(attempt=number, values=values))
        self.end(job_id)

    def state(self, job_id: str = "job-1") -> str:
        """The job's state."""
        return self.world.jobs[job_id].state.value


def submission(**changes: Any) -> facts.JobSubmitted:
    """A submission with defaults."""
    values: dict[str, Any] = {
        "kind": "fake",
        "name": None,
        "params": {},
        "priority": 0,
        "metadata": {},
        "devices": 1,
        "validates": False,
        "max_attempts": 3,
        "models": {},
        "callbacks": [],
        "estimate": None,
        "retry_of": None,
        "resume_from": None,
    }
    return facts.JobSubmitted(**{**values, **changes})


def end(**how: Any) -> verdicts.End:
    """An attempt's end; exit code 0 unless said otherwise."""
    values: dict[str, Any] = {
        "exit_code": 0,
        "signal": None,
        "lost": None,
        "problem": None,
        "oom_killed": False,
        "usage": {},
    }
    return verdicts.End(**{**values, **how})
