"""How jobs, events and models look to the outside: plain dicts, RFC 3339 times. Pure."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from finetuned.domain.job import Attempt, Job
from finetuned.domain.queue import Wait
from finetuned.domain.registers import Model, Token
from finetuned.domain.world import Slot
from finetuned_events import Anchor, BackupReport, Event, LogStatistics, RebuildReport, VerifyReport
from finetuned_sdk import JobKind

Json = dict[str, Any]


def time(at: int | None) -> str | None:
    """Microseconds since the epoch as RFC 3339 in UTC."""
    if at is None:
        return None
    return (
        datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at % 1_000_000:06d}Z"
    )


def event(each: Event) -> Json:
    """An event as pages and SSE show it."""
    return {
        "seq": each.seq,
        "stream": each.stream,
        "version": each.version,
        "type": each.type,
        "at": time(each.at),
        "actor": each.actor,
        "data": each.data,
    }


def job(each: Job, wait: Wait | None, seq: int) -> Json:
    """A job as ``GET /v1/jobs/{id}`` shows it; its events up to ``seq`` are in it."""
    newest = each.attempt
    return {
        "id": each.id,
        "object": "job",
        "seq": seq,
        "kind": each.kind,
        "name": each.name,
        "state": each.state.value,
        "phase": each.phase,
        "params": each.params,
        "priority": each.priority,
        "metadata": each.metadata,
        "attempt": newest.number if newest is not None else 0,
        "max_attempts": each.max_attempts,
        "created_at": time(each.created_at),
        "updated_at": time(each.updated_at),
        "started_at": time(each.started_at),
        "paused_at": time(each.paused_at),
        "finished_at": time(each.finished_at),
        "progress": each.progress,
        "wait_reason": wait.reason if wait else None,
        "queue_position": wait.position if wait else None,
        "retry_of": each.retry_of,
        "resume_from": each.resume_from,
        "estimate": each.estimate,
        "cancel_reason": each.cancel_reason,
        "error": each.error,
        "result": each.result,
        "devices": newest.devices if newest is not None and newest.is_live else [],
        "submitted_by": each.submitted_by,
        "attempts": [attempt(one) for one in each.attempts],
        "checkpoints": list(each.checkpoints),
        "artifacts": [
            {key: one[key] for key in ("name", "kind", "path", "bytes", "attempt")} for one in each.artifacts
        ],
        "audits": list(each.audits),
        "evaluations": list(each.evaluations),
        "advice": list(each.advice),
    }


def attempt(each: Attempt) -> Json:
    """An attempt within its job."""
    return {
        "number": each.number,
        "purpose": each.purpose,
        "devices": each.devices,
        "pid": each.pid,
        "resume_from": each.resume_from,
        "starting_at": time(each.starting_at),
        "started_at": time(each.started_at),
        "ended_at": time(each.ended_at),
        "outcome": each.outcome,
        "cause": each.cause,
        "exit_code": each.exit_code,
        "signal": each.signal,
    }


def model(each: Model) -> Json:
    """A model: OpenAI's shape, with what this daemon knows beside it."""
    return {
        "id": each.name,
        "object": "model",
        "created": each.created_at // 1_000_000,
        "owned_by": "finetuned",
        "path": each.path,
        "kind": each.kind,
        "base": each.base,
        "job": each.job,
        "lineage": each.lineage,
    }


def kind(each: JobKind) -> Json:
    """A job kind with its parameters' JSON schema."""
    return {
        "name": each.name,
        "object": "kind",
        "summary": each.summary,
        "validates": each.validator is not None,
        "params_schema": each.params.model_json_schema(),
    }


def token(each: Token) -> Json:
    """A token without its secret."""
    return {
        "id": each.id,
        "object": "token",
        "scope": each.scope,
        "name": each.name,
        "created_at": time(each.created_at),
        "revoked_at": time(each.revoked_at),
    }


def device(each: Slot) -> Json:
    """A device and the attempt that holds it."""
    holder = None if each.holder is None else {"job": each.holder[0], "attempt": each.holder[1]}
    return {
        "id": each.id,
        "kind": each.kind,
        "name": each.name,
        "memory_bytes": each.memory_bytes,
        "holder": holder,
    }


def log_statistics(each: LogStatistics) -> Json:
    """Figures about the log."""
    return {"object": "log", **asdict(each)}


def verify_report(each: VerifyReport) -> Json:
    """What a check of the log found. The head's hash is the anchor to keep."""
    return {"ok": each.ok, "events": each.events, "head": anchor(each.head), "problems": list(each.problems)}


def rebuild_report(each: RebuildReport) -> Json:
    """What a replay found: whether every live table was as the log says, and which were replaced."""
    return {
        "equal": each.equal,
        "head": each.head,
        "tables": [asdict(table) for table in each.tables],
        "swapped": list(each.swapped),
    }


def backup_report(each: BackupReport) -> Json:
    """Where a copy of the log is and where it ends."""
    return {"path": str(each.path), "head": anchor(each.head), "bytes": each.bytes}


def anchor(each: Anchor) -> Json:
    """A position and its hash, which pins everything before it."""
    return {"seq": each.seq, "hash": each.hash.hex()}
