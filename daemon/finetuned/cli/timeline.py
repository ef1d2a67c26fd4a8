"""A job's events as a timeline: what it was, for how long, who made it so and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePath
from typing import Any

from finetuned.cli import units
from finetuned.domain.states import TRANSITIONS, JobState
from finetuned.wire import Event

Json = Any

#: What a timeline is made of. Progress is left out: a long job has a hundred thousand of it.
TYPES: tuple[str, ...] = (
    "job.submitted", "job.queued", "job.phase", "job.advice", "job.cancel_requested", "job.cancelled",
    "job.pause_requested", "job.paused", "job.checkpoint_requested", "job.measured", "job.files_removed", "job.succeeded", "job.failed", "job.deleted",
    "attempt.starting", "attempt.started", "attempt.error", "attempt.line_rejected", "attempt.ended",
    "attempt.intervened", "attempt.alert",
    "dataset.audited", "evaluation.recorded", "checkpoint.saved", "artifact.published",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``state`` is ``None`` for something that happened within a state.

    ``seconds`` is how long the state (or phase) lasted; ``None`` while it lasts, and for moments.
    """

    seq: int
    at: str
    state: str | None
    actor: str
    text: str
    phase: str | None = None
    seconds: float | None = None

    def as_dict(self) -> dict[str, Json]:
        """The row for ``--json``."""
        return {
            "seq": self.seq,
            "at": self.at,
            "state": self.state,
            "phase": self.phase,
            "seconds": self.seconds,
            "actor": self.actor,
            "text": self.text,
        }


def timeline(events: Iterable[Event]) -> list[Row]:
    """The rows of one job's events, in order, with the durations filled in."""
    rows: list[Row] = []
    state: JobState | None = None
    ended: datetime | None = None
    for event in events:
        after = state_after(state, event)
        text = describe(event)
        if after is not state and after is not None:
            state = after
            rows.append(_row(event, text, state=state.value))
            if state.value in _TERMINAL:
                ended = units.moment(event["at"])
        elif event["type"] == "job.phase":
            rows.append(_row(event, text, phase=str(event["data"]["phase"])))
        elif text:
            rows.append(_row(event, text))
    return _timed(rows, ended)


_TERMINAL = ("succeeded", "failed", "cancelled")


def _row(event: Event, text: str, *, state: str | None = None, phase: str | None = None) -> Row:
    return Row(seq=event["seq"], at=event["at"], state=state, actor=event["actor"], text=text, phase=phase)


def state_after(state: JobState | None, event: Event) -> JobState | None:
    """The job's state after ``event``, by the domain's own table."""
    kind, data = event["type"], event["data"]
    if kind == "job.submitted":
        return JobState.VALIDATING if data.get("validates") else JobState.QUEUED
    if state is None or (kind, state) not in TRANSITIONS:
        return state
    return TRANSITIONS[kind, state]


def _timed(rows: list[Row], ended: datetime | None) -> list[Row]:
    """Give each state the time to the next state, and each phase the time to the next phase or state."""
    timed: list[Row] = []
    next_state: datetime | None = None
    next_step: datetime | None = None
    for row in reversed(rows):
        at = units.moment(row.at)
        if row.state is not None:
            until = None if row.state in _TERMINAL else next_state
            timed.append(replace(row, seconds=_between(at, until)))
            next_state = next_step = at
        elif row.phase is not None:
            timed.append(replace(row, seconds=_between(at, next_step or ended)))
            next_step = at
        else:
            timed.append(row)
    return timed[::-1]


def _between(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else (end - start).total_seconds()


def describe(event: Event) -> str:
    """What an event says, in a few words; empty where its state says it all."""
    kind, data = event["type"], event["data"]
    if kind.startswith("attempt."):
        return _describe_attempt(kind, data)
    if kind.startswith("job."):
        return _describe_job(kind, data)
    return _describe_work(kind, data)


def _describe_job(kind: str, data: Mapping[str, Json]) -> str:
    match kind:
        case "job.submitted":
            again = f" again (retry of {data['retry_of']})" if data.get("retry_of") else ""
            return f"submitted{again}"
        case "job.queued":
            return _queued(data)
        case "job.phase":
            return str(data["phase"]).replace("_", " ")
        case "job.advice":
            return f"advice: {data['message']}"
        case "job.cancel_requested" | "job.pause_requested":
            return str(data.get("reason") or "asked for")
        case "job.paused":
            return _from(data)
        case "job.checkpoint_requested":
            return "a checkpoint was asked for"
        case "job.measured":
            return _measured(data)
        case "job.files_removed":
            return f"its files were removed: {data['reason']}"
        case "job.succeeded":
            return figures(data.get("result") or {}, ("train_loss", "eval_loss"))
        case "job.failed":
            return f"{data['code']}: {data['message']}"
    return ""


def _queued(data: Mapping[str, Json]) -> str:
    parts = [str(data["reason"])]
    if data.get("delay_s"):
        parts.append(f"waits {units.duration(data['delay_s'])}")
    if data.get("repeated_steps") or data.get("rewinds"):
        parts.append(_from(data))
    if data.get("overrides"):
        parts.append(f"with {changes(data['overrides'])}")
    return "; ".join(part for part in parts if part)


def _from(data: Mapping[str, Json]) -> str:
    """What a job will go on from: ``from checkpoint-120; 3 steps will be done again``."""
    path, repeated = data.get("resume_from"), data.get("repeated_steps")
    parts = [
        "from the beginning" if path is None else f"from {PurePath(path).name}",
        "" if repeated is None else again(repeated),
    ]
    return "; ".join(part for part in parts if part)


def again(steps: int | None) -> str:
    """How much is repeated, in words."""
    if not steps:
        return "no step will be done again"
    return "1 step will be done again" if steps == 1 else f"{steps} steps will be done again"


def changes(overrides: Mapping[str, Json]) -> str:
    """Parameters that differ from the job's: ``batch_size 1, accumulation 8``."""
    return ", ".join(f"{name} {units.figure(value)}" for name, value in overrides.items())


def _measured(data: Mapping[str, Json]) -> str:
    """What was measured beside what was expected, where both are known."""
    parts = []
    for name, took in data["measured"].items():
        what, _, unit = name.rpartition("_")
        show = {"s": units.duration, "bytes": units.size}.get(unit)
        if took is not None and show is not None:
            expected = data["estimate"].get(name)
            beside = "" if expected is None else f" (expected {show(expected)})"
            parts.append(f"{what} {show(took)}{beside}")
    return "took " + ", ".join(parts) if parts else ""


def _describe_work(kind: str, data: Mapping[str, Json]) -> str:
    match kind:
        case "dataset.audited":
            return _audit(data["report"])
        case "evaluation.recorded":
            step = "" if data.get("step") is None else f" at step {data['step']}"
            return f"{data['name']}{step}: {figures(data['metrics'])}"
        case "checkpoint.saved":
            return f"checkpoint at step {data['step']} ({units.size(data['bytes'])})"
        case "artifact.published":
            kind = "" if data["kind"] == data["name"] else f"{data['kind']} "
            return f"{kind}{data['name']} ({units.size(data['bytes'])})"
    return ""


def _describe_attempt(kind: str, data: Mapping[str, Json]) -> str:
    match kind:
        case "attempt.starting":
            where = f" on {', '.join(data['devices'])}" if data.get("devices") else ""
            resumed = " from a checkpoint" if data.get("resume_from") else ""
            if data.get("overrides"):
                resumed += f" with {changes(data['overrides'])}"
            what = "validation" if data.get("purpose") == "validate" else f"attempt {data['attempt']}"
            return f"{what}{where}{resumed}"
        case "attempt.started":
            return ""
        case "attempt.error":
            return f"{data['code']}: {data['message']}"
        case "attempt.line_rejected":
            return f"a line of its report was skipped: {data['reason']}"
        case "attempt.intervened":
            return f"{ACTIONS.get(data['action'], data['action'])}: {data['reason']}"
        case "attempt.alert":
            return f"alert: {data['message']}"
        case "attempt.ended":
            return _ending(data)
    return ""


#: what the watchdog did, in words
ACTIONS: Mapping[str, str] = {
    "dump_stacks": "the watchdog has its stacks written to the log",
    "request_stop": "the watchdog asks it to save and stop",
    "terminate": "the watchdog terminates it",
    "kill": "the watchdog kills it",
}


def _ending(data: Mapping[str, Json]) -> str:
    outcome = str(data["outcome"])
    if outcome == "succeeded":
        return ""
    how = [
        f"signal {data['signal']}" if data.get("signal") else "",
        f"exit code {data['exit_code']}" if data.get("exit_code") else "",
        "out of memory" if data.get("oom_killed") else "",
        # A worker that failed has told its error before: its words need no repetition.
        str(data.get("cause") or "") if outcome != "failed" else "",
    ]
    why = ", ".join(part for part in how if part)
    return f"attempt {data['attempt']} {outcome}" + (f": {why}" if why else "")


def _audit(report: Mapping[str, Json]) -> str:
    parts = [f"{report.get('rows', '?')} rows", str(report.get("format") or "")]
    if report.get("truncated_rows"):
        parts.append(f"{report['truncated_rows']} are cut")
    if report.get("unanswered_rows"):
        parts.append(f"{report['unanswered_rows']} without an answer")
    parts.extend(str(warning) for warning in report.get("warnings") or ())
    dataset = str(report.get("dataset") or "data").rsplit("/", 1)[-1]
    return f"{dataset}: " + ", ".join(part for part in parts if part)


def figures(values: Mapping[str, Json], names: tuple[str, ...] | None = None) -> str:
    """``loss 0.41, accuracy 0.9`` of the numbers among ``values``, or of those that are named."""
    shown = values.items() if names is None else ((name, values.get(name)) for name in names)
    return ", ".join(
        f"{name} {units.figure(value)}"
        for name, value in shown
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
