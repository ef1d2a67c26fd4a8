"""Every event that the daemon records, one frozen dataclass each.

``fact.to_data()`` is what the log stores; ``decode(type, data)`` is its inverse. Fields hold JSON's own types
only, so that a fold of what was just decided equals a fold of what was read back. Times come from the log
(``Event.at``), durations are seconds, sizes bytes. A field that came later has a default: old events lack it.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetuned.domain.facts.access import (
    RequestAccepted,
    SecretDeleted,
    SecretSet,
    TokenCreated,
    TokenRevoked,
    TokenUsed,
)
from finetuned.domain.facts.attempts import (
    AttemptAlert,
    AttemptEnded,
    AttemptError,
    AttemptIntervened,
    AttemptLaunched,
    AttemptLineRejected,
    AttemptModel,
    AttemptResult,
    AttemptStarted,
    AttemptStarting,
)
from finetuned.domain.facts.base import Fact, Json
from finetuned.domain.facts.datasets import DatasetDeleted, DatasetRegistered
from finetuned.domain.facts.files import FileCreated, FileDeleted
from finetuned.domain.facts.host import (
    DaemonDraining,
    DaemonDrainTakenBack,
    DaemonStarted,
    DaemonStopped,
    DeviceClaimed,
    DeviceReleased,
    DevicesDetected,
    LogArchived,
)
from finetuned.domain.facts.jobs import (
    JobCancelled,
    JobCancelRequested,
    JobCheckpointRequested,
    JobDeleted,
    JobFailed,
    JobFilesRemoved,
    JobMeasured,
    JobPaused,
    JobPauseRequested,
    JobQueued,
    JobSubmitted,
    JobSucceeded,
)
from finetuned.domain.facts.models import AliasDeleted, AliasSet, ModelDeleted, ModelRegistered
from finetuned.domain.facts.progress import (
    ArtifactPublished,
    CheckpointDiscarded,
    CheckpointSaved,
    DatasetAudited,
    EvaluationRecorded,
    JobAdvice,
    JobPhase,
    JobProgress,
)
from finetuned.domain.facts.templates import TemplateDeleted, TemplateSaved
from finetuned.domain.facts.webhooks import (
    WebhookCreated,
    WebhookDeleted,
    WebhookDelivered,
    WebhookDisabled,
    WebhookEnabled,
    WebhookFailed,
    WebhookReplayed,
    WebhookRotated,
)

FACTS: dict[str, type[Fact]] = {
    fact.type: fact
    for fact in (
        JobSubmitted, JobQueued, JobPhase, JobProgress, JobAdvice, DatasetAudited, EvaluationRecorded,
        CheckpointSaved, CheckpointDiscarded, ArtifactPublished, JobCancelRequested, JobCancelled,
        JobPauseRequested, JobPaused, JobSucceeded, JobFailed, JobDeleted, AttemptStarting, AttemptLaunched,
        AttemptStarted, AttemptResult, AttemptModel, AttemptError, AttemptLineRejected, AttemptEnded,
        DevicesDetected, DeviceClaimed, DeviceReleased, ModelRegistered, ModelDeleted, DatasetRegistered,
        DatasetDeleted, TemplateSaved, TemplateDeleted, TokenCreated, TokenUsed, TokenRevoked, SecretSet,
        SecretDeleted, RequestAccepted, DaemonStarted, DaemonStopped, DaemonDraining, DaemonDrainTakenBack,
        LogArchived, AttemptIntervened,
        AttemptAlert, JobCheckpointRequested, JobMeasured, JobFilesRemoved, FileCreated, FileDeleted, AliasSet, AliasDeleted,
        WebhookCreated, WebhookDelivered, WebhookFailed, WebhookDisabled, WebhookEnabled, WebhookReplayed,
        WebhookRotated, WebhookDeleted,
    )
}  # fmt: skip

#: event type -> schema version that this release writes
SCHEMAS: dict[str, int] = dict.fromkeys(FACTS, 1)


def decode(event_type: str, data: Mapping[str, Json]) -> Fact:
    """The fact behind a stored event. Raises ``KeyError`` for a type that this release does not know."""
    return FACTS[event_type].from_data(data)


__all__ = (
    "FACTS",
    "SCHEMAS",
    "AliasDeleted",
    "AliasSet",
    "ArtifactPublished",
    "AttemptAlert",
    "AttemptEnded",
    "AttemptError",
    "AttemptIntervened",
    "AttemptLaunched",
    "AttemptLineRejected",
    "AttemptModel",
    "AttemptResult",
    "AttemptStarted",
    "AttemptStarting",
    "CheckpointDiscarded",
    "CheckpointSaved",
    "DaemonDrainTakenBack",
    "DaemonDraining",
    "DaemonStarted",
    "DaemonStopped",
    "DatasetAudited",
    "DatasetDeleted",
    "DatasetRegistered",
    "DeviceClaimed",
    "DeviceReleased",
    "DevicesDetected",
    "EvaluationRecorded",
    "Fact",
    "FileCreated",
    "FileDeleted",
    "JobAdvice",
    "JobCancelRequested",
    "JobCancelled",
    "JobCheckpointRequested",
    "JobDeleted",
    "JobFailed",
    "JobFilesRemoved",
    "JobMeasured",
    "JobPauseRequested",
    "JobPaused",
    "JobPhase",
    "JobProgress",
    "JobQueued",
    "JobSubmitted",
    "JobSucceeded",
    "Json",
    "LogArchived",
    "ModelDeleted",
    "ModelRegistered",
    "RequestAccepted",
    "SecretDeleted",
    "SecretSet",
    "TemplateDeleted",
    "TemplateSaved",
    "TokenCreated",
    "TokenRevoked",
    "TokenUsed",
    "WebhookCreated",
    "WebhookDeleted",
    "WebhookDelivered",
    "WebhookDisabled",
    "WebhookEnabled",
    "WebhookFailed",
    "WebhookReplayed",
    "WebhookRotated",
    "decode",
)
