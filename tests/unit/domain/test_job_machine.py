"""A machine that does to jobs whatever can be done to them, in any order, and looks after each step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from tests.unit.domain.worlds import Scene

from finetuned.domain import attempt_decisions, decisions, facts, pauses, tries
from finetuned.domain.errors import FinetunedError, NotFoundError, Rejected
from finetuned.domain.job import Job
from finetuned.domain.states import TERMINAL, JobState
from finetuned.domain.world import World
from finetuned.store import job_from

WAYS_TO_END: list[dict[str, Any]] = [
    {},
    {"exit_code": 1},
    {"exit_code": None, "signal": 9},
    {"exit_code": None, "signal": 9, "oom_killed": True},
    {"exit_code": None, "lost": "the machine was restarted"},
    {"problem": "a manifest does not hold"},
]


def is_interrupted(job: Job, number: int) -> bool:
    """Whether the live attempt said last that something outside it is amiss, and nothing counts for more."""
    attempt = job.live_attempt
    if attempt is None or attempt.number != number or attempt.purpose != "run":
        return False
    said = attempt.error is not None and attempt.error["pauses"]
    return bool(said) and job.state is not JobState.CANCELLING and not attempt.result and not attempt.stopping


class JobMachine(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(devices=2)
        self.count = 0
        self.terminal: dict[str, Job] = {}

    @rule(
        target=jobs,
        priority=st.integers(-2, 2),
        devices=st.integers(0, 2),
        validates=st.booleans(),
        max_attempts=st.integers(1, 3),
    )
    def submit(self, **changes: Any) -> str:
        self.count += 1
        return self.scene.submit(f"job-{self.count}", **changes).id

    @rule(target=attempts, backing_off=st.sets(st.integers(1, 5)))
    def schedule(self, backing_off: set[int]) -> Any:
        before = len(self.scene.events)
        self.scene.schedule(backing_off={f"job-{number}" for number in backing_off})
        started = [event for event in self.scene.events[before:] if event.type == facts.AttemptStarting.type]
        return multiple(*((event.stream[4:], event.data["attempt"]) for event in started))

    @rule(
        attempt=attempts,
        what=st.sampled_from(["hello", "progress", "checkpoint", "result", "error", "interruption", "model"]),
    )
    def report(self, attempt: tuple[str, int], what: str) -> None:
        job_id, number = attempt
        fact: facts.Fact
        match what:
            case "hello":
                if self.scene.world.jobs[job_id].attempts[-1].started_at is not None:
                    return
                fact = facts.AttemptStarted(attempt=number)
            case "progress":
                fact = facts.JobProgress({"loss": 1.0})
            case "checkpoint":
                fact = facts.CheckpointSaved(attempt=number, step=1, path="/c", bytes=1)
            case "result":
                fact = facts.AttemptResult(attempt=number, values={"train_loss": 1.0})
            case "model":
                fact = facts.AttemptModel(attempt=number, name="m", path="/m", kind="adapter", base=None)
            case "interruption":
                fact = facts.AttemptError(attempt=number, code="away", message="away", pauses=True)
            case _:
                fact = facts.AttemptError(attempt=number, code="bad", message="bad")
        self.scene.report(job_id, fact, attempt=number)

    @rule(attempt=consumes(attempts), how=st.sampled_from(WAYS_TO_END))
    def end(self, attempt: tuple[str, int], how: dict[str, Any]) -> None:
        before = self.scene.world.jobs[attempt[0]]
        self.scene.end(attempt[0], attempt=attempt[1], **how)
        if is_interrupted(before, attempt[1]):
            goes_on = before.state is JobState.PAUSING and before.pause_then == "queued"
            after = self.scene.world.jobs[attempt[0]]
            assert after.state is (JobState.QUEUED if goes_on else JobState.PAUSED)
            assert after.attempts[-1].outcome in tries.UNCOUNTED

    @rule(attempt=attempts, how=st.sampled_from(WAYS_TO_END))
    def end_twice(self, attempt: tuple[str, int], how: dict[str, Any]) -> None:
        self.scene.end(attempt[0], attempt=attempt[1], **how)
        assert self.scene.end(attempt[0], attempt=attempt[1], **how) == 0

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        try:
            self.scene.fold(decisions.cancel(self.scene.world, job, actor="uid:1"))
        except (Rejected, NotFoundError):
            assert self.scene.world.jobs[job].state in TERMINAL

    @rule(job=jobs, wait_s=st.sampled_from([None, 0.0, 5.0]))
    def pause(self, job: str, wait_s: float | None) -> None:
        try:
            self.scene.fold(pauses.pause(self.scene.world, job, actor="uid:1", wait_s=wait_s))
        except (Rejected, NotFoundError):
            state = self.scene.world.jobs[job].state
            assert state in TERMINAL | {JobState.CANCELLING, JobState.VALIDATING}

    @rule(job=jobs, checkpoint=st.sampled_from([None, "/c"]))
    def resume(self, job: str, checkpoint: str | None) -> None:
        try:
            self.scene.fold(pauses.resume(self.scene.world, job, actor="uid:1", checkpoint=checkpoint))
        except (Rejected, NotFoundError):
            assert self.scene.world.jobs[job].state is not JobState.PAUSED
        else:
            assert self.scene.world.jobs[job].state in {JobState.QUEUED, JobState.PAUSING}

    @rule(job=jobs)
    def request_checkpoint(self, job: str) -> None:
        try:
            self.scene.fold(pauses.request_checkpoint(self.scene.world, job, actor="uid:1"))
        except (Rejected, NotFoundError):
            assert self.scene.world.jobs[job].state is not JobState.RUNNING

    @rule()
    def drain(self) -> None:
        self.scene.fold(pauses.drain(self.scene.world, actor="daemon", reason="the machine stops"))
        states = {job.state for job in self.scene.world.jobs.values()}
        assert not states & {JobState.STARTING, JobState.RUNNING}

    @rule(attempt=attempts, failure=st.sampled_from(["stall", "start_timeout", "deadline", "limit"]))
    def intervene(self, attempt: tuple[str, int], failure: str) -> None:
        fact = facts.AttemptIntervened(
            attempt=attempt[1], action="request_stop", failure=failure, reason="because"
        )
        self.scene.fold(attempt_decisions.intervene(self.scene.world, attempt[0], fact))

    @rule(job=jobs)
    def delete(self, job: str) -> None:
        try:
            self.scene.fold(decisions.delete(self.scene.world, job, actor="uid:1"))
        except FinetunedError:
            found = self.scene.world.jobs[job]
            assert (
                found.is_live or found.deleted or any(m.job == job for m in self.scene.world.models.values())
            )

    @rule()
    def crash_and_reload(self) -> None:
        """What was projected and read back is the same world."""
        for job_id, job in self.scene.world.jobs.items():
            assert job_from(orjson.dumps(job)) == job, job_id

    @invariant()
    def a_replay_gives_the_same_world(self) -> None:
        replayed = World()
        for event in self.scene.events:
            replayed.apply(replace(event, data=orjson.loads(orjson.dumps(event.data))))
        assert replayed.jobs == self.scene.world.jobs
        assert replayed.slots == self.scene.world.slots
        assert replayed.models == self.scene.world.models

    @invariant()
    def at_most_the_newest_attempt_of_a_job_is_live(self) -> None:
        for job in self.scene.world.jobs.values():
            assert not any(attempt.is_live for attempt in job.attempts[:-1])
            assert [attempt.number for attempt in job.attempts] == sorted({a.number for a in job.attempts})

    @invariant()
    def a_device_is_held_exactly_while_its_attempt_lives(self) -> None:
        held = {slot.id: slot.holder for slot in self.scene.world.slots.values() if slot.holder}
        live = {
            device: (job.id, attempt.number)
            for job in self.scene.world.jobs.values()
            if (attempt := job.live_attempt) is not None
            for device in attempt.devices
        }
        assert held == live

    @invariant()
    def what_is_terminal_stays_as_it_is(self) -> None:
        for job in self.scene.world.jobs.values():
            if job.state in TERMINAL:
                before = self.terminal.setdefault(job.id, job)
                assert (before.state, before.result, before.error) == (job.state, job.result, job.error)
                assert job.live_attempt is None

    @invariant()
    def only_a_job_with_a_live_attempt_is_starting_running_pausing_or_cancelling(self) -> None:
        for job in self.scene.world.jobs.values():
            if job.state in {JobState.STARTING, JobState.RUNNING, JobState.CANCELLING}:
                assert job.live_attempt is not None
            if job.state in {JobState.QUEUED, JobState.PAUSED}:
                assert job.live_attempt is None
            if job.state is JobState.PAUSING:
                assert job.live_attempt is not None


JobMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestJobMachine = JobMachine.TestCase
