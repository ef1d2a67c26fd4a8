"""What a worker's spool lines mean to the log: the domain's facts, their types checked and tokens masked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from finetuned.domain import attempt_decisions, facts
from finetuned.secrets.scan import without_tokens
from finetuned_sdk.spool import BadLine
from finetuned_sdk.spool import Fact as SpoolFact

#: reports whose texts may come from anywhere, an exception's message above all: what looks like a token is masked
TOLD = frozenset({"advice", "error", "phase", "result"})

#: what a worker may report, and the fact that becomes of it
REPORTS: Mapping[str, type[facts.Fact]] = {
    "hello": facts.AttemptStarted,
    "phase": facts.JobPhase,
    "progress": facts.JobProgress,
    "advice": facts.JobAdvice,
    "audit": facts.DatasetAudited,
    "evaluation": facts.EvaluationRecorded,
    "checkpoint": facts.CheckpointSaved,
    "checkpoint_discarded": facts.CheckpointDiscarded,
    "artifact": facts.ArtifactPublished,
    "model": facts.AttemptModel,
    "result": facts.AttemptResult,
    "error": facts.AttemptError,
}


def reported(line: SpoolFact | BadLine, attempt: int) -> attempt_decisions.Reported:
    """The report behind a spool line; that it was rejected, if it is none."""
    if isinstance(line, BadLine):
        return rejected(attempt, line.line, line.reason)
    try:
        data = without_tokens(line.data) if line.type in TOLD else line.data
        return attempt_decisions.Reported(line=line.line, fact=_fact(line.type, data, attempt))
    except (KeyError, ValidationError) as error:
        return rejected(
            attempt, line.line, attempt_decisions.shortened(f"the {line.type} does not fit: {error}")
        )


def rejected(attempt: int, line: int, reason: str) -> attempt_decisions.Reported:
    """That a line is skipped, and why."""
    return attempt_decisions.Reported(
        line=line, fact=facts.AttemptLineRejected(attempt=attempt, line=line, reason=without_tokens(reason))
    )


@cache
def _adapter(kind: str) -> TypeAdapter[facts.Fact]:
    return TypeAdapter(REPORTS[kind])


def _fact(kind: str, data: Mapping[str, Any], attempt: int) -> facts.Fact:
    """The domain's fact behind a worker's, its types checked: plugins may say anything.

    Raises ``KeyError`` for an unknown kind and ``ValidationError`` if fields do not fit.
    """
    fact = REPORTS[kind]
    fields: dict[str, Any] = {"figures": dict(data)} if kind == "progress" else dict(data)
    if kind == "hello":
        fields = {"hello": fields}
    elif kind == "error":  # it may carry details for which the event has no field
        fields = {key: fields[key] for key in ("code", "message", "retryable", "pauses") if key in fields}
    if "attempt" in fact.__dataclass_fields__:
        fields["attempt"] = attempt
    return _adapter(kind).validate_python(fields)
