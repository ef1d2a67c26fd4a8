"""Decisions: given the world and an intent, the events that follow, or ``Rejected``.

Each function is pure and runs on the log's writer thread against a world that includes everything decided
before it in the same batch. It returns ``NewEvent``s and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from finetuned.domain import dataset_decisions, dependencies, facts, queue, tokens
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.job import Attempt, Job
from finetuned.domain.states import JobState
from finetuned.domain.world import World
from finetuned_events import NewEvent

Json = Any
Events = list[NewEvent]

BACKOFF_FIRST_S = 5.0
BACKOFF_LONGEST_S = 300.0


def job_event(job_id: str, fact: facts.Fact, *, actor: str, cause: str | None = None) -> NewEvent:
    """A fact on the stream of a job."""
    return _event(f"job/{job_id}", fact, actor, cause)


def _event(stream: str, fact: facts.Fact, actor: str, cause: str | None = None) -> NewEvent:
    return NewEvent(
        stream=stream,
        type=fact.type,
        data=fact.to_data(),
        actor=actor,
        cause=cause,
        schema=facts.SCHEMAS[fact.type],
    )


# ---- what users ask for ----------------------------------------------------------------------------------


def submit(world: World, job_id: str, fact: facts.JobSubmitted, *, actor: str) -> Events:
    """Accept a job. Rejected if its id is taken, or if it needs more devices than there are or what was removed."""
    if job_id in world.jobs:
        raise Rejected("job_exists", f"There is a job {job_id} already.")
    if fact.devices > len(world.slots):
        raise Rejected(
            "too_many_devices",
            f"The job asks for {fact.devices} devices and this host has {len(world.slots)}; ask for fewer.",
            param="devices",
        )
    dataset_decisions.require(world, fact.datasets)
    dependencies.require(world, fact)
    return [job_event(job_id, fact, actor=actor)]


def cancel(world: World, job_id: str, *, actor: str, reason: str | None = None) -> Events:
    """Ask a job to end. Asking twice changes nothing; an ended job is rejected."""
    job = world.job(job_id)
    if job.state is JobState.CANCELLING:
        return []
    if not job.is_live:
        raise Rejected("job_ended", f"Job {job_id} has {job.state} already; there is nothing left to cancel.")
    events = [job_event(job_id, facts.JobCancelRequested(reason=reason), actor=actor)]
    if job.live_attempt is None:
        events.append(job_event(job_id, facts.JobCancelled(), actor=actor))
    return events


def delete(world: World, job_id: str, *, actor: str) -> Events:
    """Hide an ended job. A live one is rejected, and one whose files a model or a live job needs."""
    job = world.job(job_id)
    if job.is_live:
        raise Rejected(
            "job_live", f"Job {job_id} is {job.state}; cancel it first (`finetune cancel {job_id}`)."
        )
    dependencies.require_free(world, job_id)
    return [job_event(job_id, facts.JobDeleted(), actor=actor)]


def delete_model(world: World, name: str, *, actor: str) -> Events:
    """Free a model's name."""
    if name not in world.models:
        raise NotFoundError(f"There is no model {name!r}; `finetune models` lists them.", param="name")
    return [_event(f"model/{name}", facts.ModelDeleted(name=name), actor)]


def create_token(fact: facts.TokenCreated, *, actor: str) -> Events:
    """Record a new token."""
    return [_event(f"token/{fact.id}", fact, actor)]


def revoke_token(world: World, token_id: str, *, actor: str) -> Events:
    """Close a token. Doing it twice changes nothing."""
    token = world.tokens.get(token_id)
    if token is None:
        raise NotFoundError(f"There is no token {token_id!r}; `finetune tokens list` shows them.", param="id")
    return [] if token.revoked_at else [_event(f"token/{token_id}", facts.TokenRevoked(id=token_id), actor)]


def set_secret(fact: facts.SecretSet, *, actor: str) -> Events:
    """Record that a secret was stored."""
    return [_event(f"secret/{fact.name}", fact, actor)]


def delete_secret(fact: facts.SecretDeleted, *, actor: str) -> Events:
    """Record that a secret was removed."""
    return [_event(f"secret/{fact.name}", fact, actor)]


def use_tokens(world: World, used: Iterable[str], *, now: int) -> Events:
    """Record that tokens opened the door: of each that is there still, at most once an hour."""
    known = [world.tokens[token_id] for token_id in sorted(used) if token_id in world.tokens]
    return [
        _event(f"token/{token.id}", facts.TokenUsed(id=token.id), f"token:{token.id}")
        for token in known
        if tokens.use_is_worth_recording(token, now)
    ]


# ---- what the daemon does --------------------------------------------------------------------------------


def daemon_started(version: str, pid: int) -> Events:
    """A daemon opened the log."""
    return [_event("daemon", facts.DaemonStarted(version=version, pid=pid), "daemon")]


def daemon_stopped() -> Events:
    """The daemon closes the log on purpose."""
    return [_event("daemon", facts.DaemonStopped(), "daemon")]


def devices_detected(world: World, found: Sequence[Mapping[str, Json]]) -> Events:
    """Record the host's devices if they differ from what the log knows."""
    present = [slot for slot in world.slots.values() if not slot.gone]
    known = {slot.id: (slot.kind, slot.name, slot.memory_bytes) for slot in present}
    seen = {each["id"]: (each["kind"], each["name"], each["memory_bytes"]) for each in found}
    if known == seen:
        return []
    return [_event("devices", facts.DevicesDetected(devices=[dict(each) for each in found]), "daemon")]


def schedule(
    world: World, *, elapsed: AbstractSet[tuple[str, int]], reserved: AbstractSet[str] = frozenset()
) -> Events:
    """Start every attempt that may start now. The claim and ``attempt.starting`` are one transaction.

    ``elapsed`` names the backoffs that are over (job, attempts so far), ``reserved`` devices that nobody may have.
    """
    held = queue.in_backoff(world.live_jobs(), elapsed)
    slots = world.slots.values()
    events: Events = []
    for claim in queue.plan(world.live_jobs(), slots, in_backoff=held, reserved=reserved):
        number = claim.job.next_attempt
        starting = facts.AttemptStarting(
            attempt=number,
            purpose=claim.purpose,
            devices=list(claim.devices),
            resume_from=claim.job.resume_from if claim.purpose == "run" else None,
        )
        events.append(job_event(claim.job.id, starting, actor="scheduler"))
        if claim.devices:
            claimed = facts.DeviceClaimed(devices=list(claim.devices), job=claim.job.id, attempt=number)
            events.append(_event("devices", claimed, "scheduler"))
    return events


# ---- what attempts report --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One line of an attempt's spool: a fact, or why the line could not be read."""

    line: int
    fact: facts.Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The proven end of an attempt. ``lost`` says why nothing tells how it ended; ``problem`` spoils a success.

    ``refused`` is the code of what kept it from starting, which ``lost`` tells, if another try cannot mend that.
    """

    exit_code: int | None
    signal: int | None
    lost: str | None
    problem: str | None
    oom_killed: bool
    usage: Mapping[str, float]
    refused: str | None = None


def live_attempt(world: World, job_id: str, number: int) -> tuple[Job, Attempt] | None:
    """The job and its attempt if that is the live one; ``None`` for late messages of an older attempt."""
    job = world.jobs.get(job_id)
    attempt = job.live_attempt if job is not None else None
    if job is None or attempt is None or attempt.number != number:
        return None
    return job, attempt


def launched(world: World, job_id: str, fact: facts.AttemptLaunched) -> Events:
    """Record the runner's identity, once."""
    found = live_attempt(world, job_id, fact.attempt)
    if found is None or found[1].pid is not None:
        return []
    return [job_event(job_id, fact, actor=f"attempt:{fact.attempt}")]


def record(world: World, job_id: str, number: int, reports: Sequence[Reported]) -> Events:
    """Ingest spool lines. Lines at or below the cursor, and lines of a fenced attempt, change nothing."""
    found = live_attempt(world, job_id, number)
    if found is None:
        return []
    actor = f"attempt:{number}"
    return [
        job_event(job_id, report.fact, actor=actor, cause=f"spool:{report.line}")
        for report in reports
        if report.line > found[1].line
    ]


def ended(
    world: World, job_id: str, number: int, end: End, *, resume_from: str | None, jitter: float
) -> Events:
    """Record an attempt's proven end, free its devices, and decide what becomes of the job.

    ``resume_from`` is the newest complete checkpoint, ``jitter`` a number from 0 to 1 for the backoff.
    """
    found = live_attempt(world, job_id, number)
    if found is None:
        return []
    job, attempt = found
    outcome, cause = _outcome(job, attempt, end)
    events = _end(job, attempt, outcome, cause, end)
    if outcome == "failed" and end.refused is not None:
        refused = facts.JobFailed(code=end.refused, message=f"{cause} Then `finetune retry {job.id}`.")
        return [*events, job_event(job.id, refused, actor="supervisor")]
    return [*events, *_consequences(job, attempt, outcome, cause, resume_from, jitter)]


def ended_unusably(world: World, job_id: str, number: int, end: End, why: str) -> Events:
    """Record an attempt's proven end when what should follow from it cannot be recorded: the job fails."""
    found = live_attempt(world, job_id, number)
    if found is None:
        return []
    job, attempt = found
    cancelled = job.state is JobState.CANCELLING
    message = f"What the attempt left behind could not be recorded: {shortened(why)}"
    last = facts.JobCancelled() if cancelled else facts.JobFailed(code="unusable_result", message=message)
    events = _end(job, attempt, "cancelled" if cancelled else "failed", message, end)
    return [*events, job_event(job_id, last, actor="supervisor")]


def shortened(text: str, longest: int = 1_000) -> str:
    """The text, cut to a length that any event can hold."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _end(job: Job, attempt: Attempt, outcome: str, cause: str | None, end: End) -> Events:
    fact = facts.AttemptEnded(
        attempt=attempt.number,
        outcome=outcome,
        exit_code=end.exit_code,
        signal=end.signal,
        cause=None if cause is None else shortened(cause),
        oom_killed=end.oom_killed,
        usage=dict(end.usage),
    )
    events = [job_event(job.id, fact, actor="supervisor")]
    if attempt.devices:
        released = facts.DeviceReleased(devices=attempt.devices, job=job.id, attempt=attempt.number)
        events.append(_event("devices", released, "supervisor"))
    return events


def _outcome(job: Job, attempt: Attempt, end: End) -> tuple[str, str | None]:
    if job.state is JobState.CANCELLING:
        return "cancelled", job.cancel_reason
    if end.lost is not None:
        return "lost" if end.refused is None else "failed", end.lost
    if end.exit_code is None and end.signal is None:
        return "crashed", end.problem
    if attempt.error is not None:
        return "failed", attempt.error["message"]
    if end.oom_killed:
        return "crashed", "the kernel's out-of-memory killer ended it"
    if end.signal is not None:
        return "crashed", f"it was killed by signal {end.signal}"
    if end.exit_code != 0:
        return "crashed", f"its process ended with exit code {end.exit_code}"
    if attempt.result is None:
        return "crashed", "its process ended without a result"
    if end.problem is not None:
        return "crashed", end.problem
    return "succeeded", None


def _consequences(
    job: Job, attempt: Attempt, outcome: str, cause: str | None, resume_from: str | None, jitter: float
) -> Events:
    def on_job(fact: facts.Fact) -> NewEvent:
        return job_event(job.id, fact, actor="supervisor")

    if outcome == "cancelled":
        return [on_job(facts.JobCancelled())]
    if outcome == "succeeded" and attempt.purpose == "validate":
        return [on_job(facts.JobQueued(reason="its data are valid"))]
    if outcome == "succeeded":
        return _succeeded(job, attempt)
    if outcome == "failed" and attempt.error is not None and not attempt.error.get("retryable"):
        return [on_job(facts.JobFailed(code=attempt.error["code"], message=attempt.error["message"]))]
    return _again_or_give_up(job, attempt, cause, resume_from, jitter)


def _succeeded(job: Job, attempt: Attempt) -> Events:
    events = [job_event(job.id, facts.JobSucceeded(result=attempt.result or {}), actor="supervisor")]
    for model in attempt.models or []:
        lineage = {**model["lineage"], "kind": job.kind, "attempt": attempt.number}
        registered = facts.ModelRegistered(**{**model, "lineage": lineage}, job=job.id)
        events.append(_event(f"model/{model['name']}", registered, "supervisor"))
    return events


def _again_or_give_up(
    job: Job, attempt: Attempt, cause: str | None, resume_from: str | None, jitter: float
) -> Events:
    tries = [each for each in job.attempts if each.purpose == attempt.purpose]
    if len(tries) >= job.max_attempts:
        causes = [each.cause or "unknown" for each in tries[:-1]] + [cause or "unknown"]
        told = list(zip(tries, causes, strict=True))[-10:]
        listed = "; ".join(f"attempt {each.number}: {shortened(why, 300).rstrip('.')}" for each, why in told)
        plural = "attempt" if len(tries) == 1 else "attempts"
        message = f"Gave up after {len(tries)} {plural}: {listed}. `finetune logs {job.id}` shows its output."
        return [job_event(job.id, facts.JobFailed(code="gave_up", message=message), actor="supervisor")]
    if attempt.purpose == "validate":
        return []  # still validating: the scheduler starts its next attempt
    queued = facts.JobQueued(
        reason=f"attempt {attempt.number} ended: {shortened(cause or 'unknown', 300)}",
        delay_s=backoff_s(len(tries), jitter),
        resume_from=resume_from,
    )
    return [job_event(job.id, queued, actor="supervisor")]


def backoff_s(tries: int, jitter: float) -> float:
    """Seconds before try ``tries + 1``: doubled each time, capped, spread over the upper half by ``jitter``."""
    longest = min(BACKOFF_FIRST_S * 2.0 ** (tries - 1), BACKOFF_LONGEST_S)
    return round(longest * (0.5 + 0.5 * jitter), 3)
