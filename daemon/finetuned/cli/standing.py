"""How a job stands: why it is paused, what it may take, what ended its attempts. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from finetuned.cli import units
from finetuned.cli.timeline import again, changes
from finetuned.domain.states import TERMINAL, JobState
from finetuned.domain.timeouts import DEFAULTS
from finetuned.wire import Attempt, Job


def line(job: Job) -> str:
    """Its state after a pause was asked for: ``paused at step 120; 3 steps will be done again``."""
    state = JobState(job["state"])
    if state is not JobState.PAUSED:
        return f"{state}; it ended before it could pause" if state in TERMINAL else str(state)
    step = (job["progress"] or {}).get("current_step")
    where = "" if step is None else f" at step {step}"
    repeated = "" if job["repeated_steps"] is None else f"; {again(job['repeated_steps'])}"
    return f"paused{where}{repeated}"


def paused(job: Job) -> str:
    """Why a job is paused, and how it goes on."""
    repeated = again(job["repeated_steps"]) if job["repeated_steps"] else ""
    parts = (job["pause_reason"], repeated, f"`finetune resume {job['id']}` lets it go on")
    return "; ".join(part for part in parts if part)


def bounds(job: Job) -> Iterator[tuple[str, str]]:
    """What it may take and how long, where that is not the default; name and value."""
    limits = (f"{name} {_limit(name, value)}" for name, value in job["limits"].items())
    if text := ", ".join(limits):
        yield "limits", text
    timeouts = (
        f"{name.removesuffix('_s')} {units.duration(value)}" for name, value in own_timeouts(job).items()
    )
    if text := ", ".join(timeouts):
        yield "time-outs", text
    if job["preemptible"]:
        yield "preemptible", "a job of higher priority may have its devices"
    if not job["reduces_batch"]:
        yield "batch", "stays as it is when memory runs out"
    if job["overrides"]:
        yield "changed", changes(job["overrides"])


def own_timeouts(job: Job) -> dict[str, float]:
    """Its time-outs that are not the daemon's defaults, in seconds."""
    return {
        name: value
        for name, value in job["timeouts"].items()
        if value is not None and value != DEFAULTS.get(name)
    }


def _limit(name: str, value: float) -> str:
    return f"{value:g} cores" if name == "cpu" else units.size(value)


def cause(attempt: Attempt) -> str:
    """Why an attempt ended, with the kind of its failure; or why it is being stopped."""
    if attempt["ended_at"] is None:
        return f"being stopped: {attempt['stopping']['reason']}" if attempt["stopping"] else ""
    kind = (attempt["failure"] or "").replace("_", " ")
    return ": ".join(part for part in (kind, attempt["cause"] or "") if part)
