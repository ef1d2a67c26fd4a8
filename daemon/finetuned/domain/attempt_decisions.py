"""What attempts report, and what becomes of their jobs when they end; pure, as :mod:`finetuned.domain.decisions` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetuned.domain import facts, failures, files, salvage, tries
from finetuned.domain.failures import Failure
from finetuned.domain.job import Attempt, Job
from finetuned.domain.states import JobState
from finetuned.domain.streams import event, job_event
from finetuned.domain.verdicts import End, Verdict, judge
from finetuned.domain.world import World
from finetuned_events import NewEvent

Json = Any
Events = list[NewEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One line of an attempt's spool: a fact, or why the line could not be read."""

    line: int
    fact: facts.Fact


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What another attempt would begin with, looked up before the end is decided.

    ``resume_from`` is the newest complete checkpoint and ``step`` its step. ``reduced`` are parameters that take half
    the memory and train the same, if the kind has such. ``jitter`` is a number from 0 to 1 for the backoff.
    ``salvaged`` is what was made of the job's leftovers in case that it ends; ``None`` if that is still to be done.
    """

    resume_from: str | None = None
    step: int | None = None
    reduced: Mapping[str, Json] | None = None
    jitter: float = 0.0
    salvaged: salvage.Salvage | None = salvage.NOTHING


def intervene(world: World, job_id: str, fact: facts.AttemptIntervened | facts.AttemptAlert) -> Events:
    """Record what the watchdog did or saw; nothing for an attempt that has ended."""
    if live_attempt(world, job_id, fact.attempt) is None:
        return []
    return [job_event(job_id, fact, actor="watchdog")]


def ended(world: World, job_id: str, number: int, end: End, prospect: Prospect) -> Events:
    """Record an attempt's proven end, free its devices, and decide what becomes of the job.

    Raises ``SalvageDueError`` if the job ends without success and its leftovers were not looked at.
    """
    found = live_attempt(world, job_id, number)
    if found is None:
        return []
    events = salvage.placed(found[0], _ended(*found, end, prospect), prospect.salvaged)
    return files.with_made(found[0], events)


def _ended(job: Job, attempt: Attempt, end: End, prospect: Prospect) -> Events:
    verdict = judge(job, attempt, end)
    events = _end(job, attempt, verdict, end)
    if verdict.outcome == "failed" and end.refused is not None:
        refused = facts.JobFailed(
            code=end.refused, message=f"{verdict.cause} Then `finetune retry {job.id}`."
        )
        return [*events, job_event(job.id, refused, actor="supervisor")]
    return [*events, *_consequences(job, attempt, verdict, prospect, end)]


def ended_unusably(world: World, job_id: str, number: int, end: End, why: str) -> Events:
    """Record an attempt's proven end when what should follow from it cannot be recorded: the job fails."""
    found = live_attempt(world, job_id, number)
    if found is None:
        return []
    job, attempt = found
    cancelled = job.state is JobState.CANCELLING
    message = f"What the attempt left behind could not be recorded: {shortened(why)}"
    last = facts.JobCancelled() if cancelled else facts.JobFailed(code="unusable_result", message=message)
    verdict = Verdict("cancelled" if cancelled else "failed", message)
    events = [*_end(job, attempt, verdict, end), job_event(job.id, last, actor="supervisor")]
    return files.with_made(job, events)


def shortened(text: str, longest: int = 1_000) -> str:
    """The text, cut to a length that any event can hold."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _end(job: Job, attempt: Attempt, verdict: Verdict, end: End) -> Events:
    fact = facts.AttemptEnded(
        attempt=attempt.number,
        outcome=verdict.outcome,
        exit_code=end.exit_code,
        signal=end.signal,
        cause=None if verdict.cause is None else shortened(verdict.cause),
        oom_killed=end.oom_killed,
        usage=dict(end.usage),
        failure=None if verdict.failure is None else verdict.failure.value,
    )
    events = [job_event(job.id, fact, actor="supervisor")]
    if attempt.devices:
        released = facts.DeviceReleased(devices=attempt.devices, job=job.id, attempt=attempt.number)
        events.append(event("devices", released, "supervisor"))
    return events


def _consequences(job: Job, attempt: Attempt, verdict: Verdict, prospect: Prospect, end: End) -> Events:
    def on_job(fact: facts.Fact) -> NewEvent:
        return job_event(job.id, fact, actor="supervisor")

    if verdict.outcome == "cancelled":
        return [on_job(facts.JobCancelled())]
    if verdict.outcome == "succeeded" and attempt.purpose == "validate":
        return [on_job(facts.JobQueued(reason="its data are valid"))]
    if verdict.outcome == "succeeded":
        return _succeeded(job, attempt, end)
    failure = verdict.failure
    if failure is not None and not _may_try_again(job, failure, prospect):
        return [on_job(_failed(job, attempt, failure, verdict))]
    if verdict.waits and not (job.state is JobState.PAUSING and job.pause_then == "queued"):
        wanted = facts.JobPauseRequested(reason=shortened(verdict.cause or "it cannot go on"))
        return [on_job(wanted), on_job(_paused(job, verdict, prospect))]
    if job.state is JobState.PAUSING:
        return [on_job(_left(job, verdict, prospect))]
    if verdict.outcome == "paused":  # it uses up no try, and waits for nothing
        return [] if attempt.purpose == "validate" else [on_job(_queued(job, attempt, verdict, prospect))]
    attempt = replace(attempt, wall_s=end.usage.get("wall_s", 0.0))
    return _again_or_give_up(job, attempt, verdict, prospect)


def _may_try_again(job: Job, failure: Failure, prospect: Prospect) -> bool:
    if failures.needs_reduction(failure):
        return job.reduces_batch and prospect.reduced is not None
    return failures.RULES[failure].retried


def _failed(job: Job, attempt: Attempt, failure: Failure, verdict: Verdict) -> facts.JobFailed:
    if attempt.stopping is None and attempt.error is not None:
        return facts.JobFailed(code=attempt.error["code"], message=attempt.error["message"])
    message = verdict.cause or failure.value
    if failure is Failure.DEADLINE:
        way_on = (
            f"`finetune retry {job.id} --from-checkpoint latest` goes on with what it has, for as long again."
        )
        message = f"{message[:1].upper()}{message[1:]}. {way_on}"
    return facts.JobFailed(code=failures.CODES.get(failure, failure.value), message=message)


def _left(job: Job, verdict: Verdict, prospect: Prospect) -> facts.JobPaused | facts.JobQueued:
    """What a pause ends in: the job waits to be resumed, or goes on by itself when it may."""
    if job.pause_then == "paused":
        return _paused(job, verdict, prospect)
    return facts.JobQueued(
        reason=job.pause_reason or "it left its devices",
        resume_from=prospect.resume_from,
        repeated_steps=_repeated(job, prospect),
        overrides=_overrides(job, verdict, prospect),
        preempted_by=job.preempted_by,
    )


def _paused(job: Job, verdict: Verdict, prospect: Prospect) -> facts.JobPaused:
    return facts.JobPaused(
        resume_from=prospect.resume_from,
        repeated_steps=_repeated(job, prospect),
        overrides=_overrides(job, verdict, prospect),
    )


def _overrides(job: Job, verdict: Verdict, prospect: Prospect) -> dict[str, Json]:
    """Parameters that differ from now on: an attempt that ran out of memory is followed by a smaller one."""
    reduces = verdict.failure is not None and failures.RULES[verdict.failure].reduces and job.reduces_batch
    return dict(prospect.reduced or {}) if reduces else {}


def _repeated(job: Job, prospect: Prospect) -> int | None:
    """Steps that were done after the checkpoint that the next attempt goes on from."""
    done = (job.progress or {}).get("current_step")
    return None if not isinstance(done, int) else max(0, done - (prospect.step or 0))


def _succeeded(job: Job, attempt: Attempt, end: End) -> Events:
    events = [job_event(job.id, facts.JobSucceeded(result=attempt.result or {}), actor="supervisor")]
    if job.estimate is not None:
        measured = facts.JobMeasured(estimate=job.estimate, measured=_measured(job, attempt, end))
        events.insert(0, job_event(job.id, measured, actor="supervisor"))
    for model in attempt.models or []:
        lineage = {**model["lineage"], "kind": job.kind, "attempt": attempt.number}
        registered = facts.ModelRegistered(**{**model, "lineage": lineage}, job=job.id)
        events.append(event(f"model/{model['name']}", registered, "supervisor"))
    return events


def _measured(job: Job, attempt: Attempt, end: End) -> dict[str, Json]:
    """What the job took: time of all its runs, memory of the last, disk of what it kept."""
    walls = [*(each.wall_s for each in job.runs[:-1]), end.usage.get("wall_s", 0.0)]
    largest = end.usage.get("max_rss_bytes")  # of one process alone: better than nothing
    return {
        "duration_s": round(sum(walls), 3),
        "device_bytes": attempt.measured.get("device_bytes"),
        "host_bytes": attempt.measured.get("host_bytes", None if largest is None else int(largest)),
        "disk_bytes": sum(each["bytes"] for each in (*job.checkpoints, *job.artifacts)),
    }


def _again_or_give_up(job: Job, attempt: Attempt, verdict: Verdict, prospect: Prospect) -> Events:
    cause = verdict.cause or "unknown"
    tried = tries.with_newest(job, replace(attempt, failure=verdict.failure, cause=cause))
    if tries.are_used_up(job, tried, next_from=prospect.resume_from or job.resume_from):
        message = f"Gave up after {_told(tried)}. `finetune logs {job.id}` shows its output."
        return [job_event(job.id, facts.JobFailed(code="gave_up", message=message), actor="supervisor")]
    if attempt.purpose == "validate":
        return []  # still validating: the scheduler starts its next attempt
    delay_s = tries.backoff_s(max(1, len(tries.brief(tried))), prospect.jitter)
    return [job_event(job.id, _queued(job, attempt, verdict, prospect, delay_s), actor="supervisor")]


def _told(tried: Sequence[Attempt]) -> str:
    """How often it was tried and what each try died of; said once where all died of the same."""
    causes = [shortened(each.cause or "unknown", 300).rstrip(".") for each in tried[-10:]]
    if len(tried) > 1 and len(set(causes)) == 1:
        return f"{len(tried)} attempts that ended alike: {causes[0]}"
    plural = "attempt" if len(tried) == 1 else "attempts"
    told = (f"attempt {each.number}: {cause}" for each, cause in zip(tried[-10:], causes, strict=True))
    return f"{len(tried)} {plural}: {'; '.join(told)}"


def _queued(
    job: Job, attempt: Attempt, verdict: Verdict, prospect: Prospect, delay_s: float = 0.0
) -> facts.JobQueued:
    """That another attempt follows this one."""
    return facts.JobQueued(
        reason=f"attempt {attempt.number} ended: {shortened(verdict.cause or 'unknown', 300)}",
        delay_s=delay_s,
        resume_from=prospect.resume_from,
        repeated_steps=_repeated(job, prospect),
        overrides=_overrides(job, verdict, prospect),
    )
