"""How jobs, events and models look to the outside: plain dicts, RFC 3339 times. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, overload

from finetuned import wire
from finetuned.domain.job import Attempt, Job
from finetuned.domain.registers import Token
from finetuned.domain.waits import Wait
from finetuned.domain.world import Slot
from finetuned.results import checkpoints
from finetuned.results.checkpoints import Looked
from finetuned_events import (
    Anchor,
    ArchiveFile,
    BackupReport,
    Event,
    LogStatistics,
    RebuildReport,
    Seal,
    VerifyReport,
)
from finetuned_sdk import JobKind


@overload
def time(at: int) -> str: ...
@overload
def time(at: None) -> None: ...
@overload
def time(at: int | None) -> str | None: ...
def time(at: int | None) -> str | None:
    """Microseconds since the epoch as RFC 3339 in UTC."""
    if at is None:
        return None
    return (
        datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at % 1_000_000:06d}Z"
    )


def event(each: Event) -> wire.Event:
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


def job(each: Job, wait: Wait | None) -> wire.Job:
    """A job as ``GET /v1/jobs/{job_id}`` shows it."""
    newest = each.attempt
    return {
        "id": each.id,
        "object": "job",
        "seq": each.updated_seq,
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
        "template": each.template,
        "datasets": each.datasets,
        "secrets": each.secrets,
        "estimate": each.estimate,
        "measured": each.measured,
        "ignores_estimate": each.ignores_estimate,
        "timeouts": each.timeouts,
        "limits": each.limits,
        "preemptible": each.preemptible,
        "reduces_batch": each.reduces_batch,
        "overrides": each.overrides,
        "pause_reason": each.pause_reason,
        "repeated_steps": each.repeated_steps,
        "cancel_reason": each.cancel_reason,
        "error": _error(each),
        "result": each.result,
        "devices": newest.devices if newest is not None and newest.is_live else [],
        "submitted_by": each.submitted_by,
        "attempts": [attempt(one) for one in each.attempts],
        "checkpoints": [checkpoint(one) for one in each.checkpoints],
        "artifacts": [artifact(one) for one in each.artifacts],
        "audits": list(each.audits),
        "evaluations": list(each.evaluations),
        "advice": list(each.advice),
        "alerts": [alert(one) for one in each.alerts],
        "files_removed": _removed(each),
    }


def _removed(each: Job) -> wire.FilesRemoved | None:
    gone = each.files_removed
    return (
        None if gone is None else {"at": time(gone["at"]), "reason": gone["reason"], "bytes": gone["bytes"]}
    )


def _error(each: Job) -> wire.JobError | None:
    return None if each.error is None else {"code": each.error["code"], "message": each.error["message"]}


def checkpoint(each: Mapping[str, Any]) -> wire.Checkpoint:
    """A checkpoint of a job."""
    return {
        "id": checkpoints.id_of(each),
        "object": "checkpoint",
        "step": each["step"],
        "attempt": each["attempt"],
        "path": each["path"],
        "bytes": each["bytes"],
        "metrics": each["metrics"],
        "created_at": time(each.get("at")),
    }


def checked_checkpoint(each: Looked) -> wire.CheckedCheckpoint:
    """A checkpoint of a job as its files are now."""
    return {
        **checkpoint(each.checkpoint),
        "validity": each.validity,
        "problem": each.problem,
        "resumes": each.resumes,
    }


def artifact(each: Mapping[str, Any]) -> wire.Artifact:
    """An artifact of a job, without its files."""
    return {
        "id": each["name"],
        "object": "artifact",
        "name": each["name"],
        "kind": each["kind"],
        "attempt": each["attempt"],
        "path": each["path"],
        "bytes": each["bytes"],
        "created_at": time(each.get("at")),
    }


def attempt(each: Attempt) -> wire.Attempt:
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
        "failure": each.failure,
        "stopping": None
        if each.stopping is None
        else {"failure": each.stopping["failure"], "reason": each.stopping["reason"]},
        "overrides": each.overrides,
    }


def alert(each: Mapping[str, Any]) -> wire.Alert:
    """What was seen about an attempt."""
    return {
        "attempt": each["attempt"],
        "subject": each["subject"],
        "message": each["message"],
        "figures": each["figures"],
        "at": time(each.get("at")),
    }


def kind(each: JobKind) -> wire.Kind:
    """A job kind with its parameters' JSON schema."""
    return {
        "name": each.name,
        "object": "kind",
        "summary": each.summary,
        "validates": each.validator is not None,
        "params_schema": each.params.model_json_schema(),
        "dataset_params": list(each.dataset_params),
    }


def token(each: Token) -> wire.Token:
    """A token without its secret."""
    return {
        "id": each.id,
        "object": "token",
        "scope": each.scope,
        "name": each.name,
        "created_at": time(each.created_at),
        "expires_at": time(each.expires_at),
        "last_used_at": time(each.last_used_at),
        "revoked_at": time(each.revoked_at),
    }


def device(each: Slot) -> wire.Device:
    """A device and the attempt that holds it."""
    holder = None if each.holder is None else wire.Holder(job=each.holder[0], attempt=each.holder[1])
    return {
        "id": each.id,
        "kind": each.kind,
        "name": each.name,
        "memory_bytes": each.memory_bytes,
        "holder": holder,
    }


def log_statistics(each: LogStatistics) -> wire.LogStatistics:
    """Figures about the log."""
    return {
        "object": "log",
        "head": each.head,
        "queued": each.queued,
        "busy_seconds": each.busy_seconds,
        "commits": each.commits,
        "failed_commits": each.failed_commits,
        "wal_bytes": each.wal_bytes,
        "database_bytes": each.database_bytes,
        "archives": [archive(one) for one in each.seals],
        "read_only": each.read_only,
    }


def verify_report(each: VerifyReport) -> wire.VerifyReport:
    """What a check of the log found. The head's hash is the anchor to keep."""
    return {"ok": each.ok, "events": each.events, "head": anchor(each.head), "problems": list(each.problems)}


def rebuild_report(each: RebuildReport) -> wire.RebuildReport:
    """What a replay found: whether every live table was as the log says, and which were replaced."""
    return {
        "equal": each.equal,
        "head": each.head,
        "tables": [
            {
                "projection": table.projection,
                "table": table.table,
                "rows": table.rows,
                "equal": table.equal,
            }
            for table in each.tables
        ],
        "swapped": list(each.swapped),
    }


def backup_report(each: BackupReport) -> wire.BackupReport:
    """Where a copy of the log is and where it ends."""
    return {"path": str(each.path), "head": anchor(each.head), "bytes": each.bytes}


def archive(each: ArchiveFile | Seal) -> wire.Archive:
    """An archive of the log."""
    return {
        "path": str(each.path if isinstance(each, ArchiveFile) else each.file),
        "first": each.previous.seq + 1,
        "last": each.head.seq,
        "hash": each.head.hash.hex(),
        "previous_hash": each.previous.hash.hex(),
        "bytes": each.bytes,
        "sha256": each.sha256,
    }


def anchor(each: Anchor) -> wire.Anchor:
    """A position and its hash, which pins everything before it."""
    return {"seq": each.seq, "hash": each.hash.hex()}
