"""What goes over the wire: the shapes of the daemon's answers, one ``TypedDict`` each.

``finetuned.views`` makes them, ``finetuned.client`` returns them, and OpenAPI is generated from them.
"""

from __future__ import annotations

from finetuned.wire.access import NewToken, RevokedToken, Token
from finetuned.wire.aliases import Alias
from finetuned.wire.artifacts import Artifact, ArtifactContents, ArtifactFile, CheckedCheckpoint, Checkpoint
from finetuned.wire.batches import (
    Batch,
    BatchCounts,
    BatchList,
    BatchPage,
    BatchProblem,
    BatchProgress,
    BatchStatus,
    BatchUsage,
)
from finetuned.wire.datasets import Dataset, DatasetAudit, DatasetPreview, DatasetRow, DatasetVersion
from finetuned.wire.devices import Device, Holder
from finetuned.wire.drain import Drain
from finetuned.wire.errors import Error, ErrorAnswer
from finetuned.wire.estimates import Check, DryRun, Duration, Fix, Start
from finetuned.wire.events import Event
from finetuned.wire.files import File, Upload, UploadPart, UploadStatus
from finetuned.wire.fine_tuning import (
    FineTuningCheckpoint,
    FineTuningCheckpointPage,
    FineTuningError,
    FineTuningEvent,
    FineTuningHyperparameters,
    FineTuningJob,
    FineTuningMethod,
    FineTuningMetrics,
    FineTuningPage,
    FineTuningProgress,
    FineTuningStatus,
)
from finetuned.wire.health import Alive, Ready
from finetuned.wire.inference import Completion, Embeddings
from finetuned.wire.jobs import Alert, Attempt, FilesRemoved, Job, JobError, Kind, Stopping
from finetuned.wire.lineage import DerivedModel, Lineage, LineageDataset, LineageJob, LineageModel, NextStep
from finetuned.wire.lists import Deleted, Page
from finetuned.wire.log import (
    Anchor,
    Archive,
    ArchiveReport,
    BackupReport,
    LogStatistics,
    RebuildReport,
    TableReport,
    VerifyReport,
)
from finetuned.wire.models import Model
from finetuned.wire.output import AttemptCounts, LogCounts, LogLine
from finetuned.wire.secrets import Secret
from finetuned.wire.series import Metrics, Series
from finetuned.wire.system import System, SystemHistory
from finetuned.wire.templates import Template
from finetuned.wire.webhooks import NewWebhook, Webhook, WebhookFailure, WebhookSecret, WebhookTest
from finetuned.wire.workers import Cleared, ClearedGpu, EngineQueue, Worker

__all__ = (
    "Alert",
    "Alias",
    "Alive",
    "Anchor",
    "Archive",
    "ArchiveReport",
    "Artifact",
    "ArtifactContents",
    "ArtifactFile",
    "Attempt",
    "AttemptCounts",
    "BackupReport",
    "Batch",
    "BatchCounts",
    "BatchList",
    "BatchPage",
    "BatchProblem",
    "BatchProgress",
    "BatchStatus",
    "BatchUsage",
    "Check",
    "CheckedCheckpoint",
    "Checkpoint",
    "Cleared",
    "ClearedGpu",
    "Completion",
    "Dataset",
    "DatasetAudit",
    "DatasetPreview",
    "DatasetRow",
    "DatasetVersion",
    "Deleted",
    "DerivedModel",
    "Device",
    "Drain",
    "DryRun",
    "Duration",
    "Embeddings",
    "EngineQueue",
    "Error",
    "ErrorAnswer",
    "Event",
    "File",
    "FilesRemoved",
    "FineTuningCheckpoint",
    "FineTuningCheckpointPage",
    "FineTuningError",
    "FineTuningEvent",
    "FineTuningHyperparameters",
    "FineTuningJob",
    "FineTuningMethod",
    "FineTuningMetrics",
    "FineTuningPage",
    "FineTuningProgress",
    "FineTuningStatus",
    "Fix",
    "Holder",
    "Job",
    "JobError",
    "Kind",
    "Lineage",
    "LineageDataset",
    "LineageJob",
    "LineageModel",
    "LogCounts",
    "LogLine",
    "LogStatistics",
    "Metrics",
    "Model",
    "NewToken",
    "NewWebhook",
    "NextStep",
    "Page",
    "Ready",
    "RebuildReport",
    "RevokedToken",
    "Secret",
    "Series",
    "Start",
    "Stopping",
    "System",
    "SystemHistory",
    "TableReport",
    "Template",
    "Token",
    "Upload",
    "UploadPart",
    "UploadStatus",
    "VerifyReport",
    "Webhook",
    "WebhookFailure",
    "WebhookSecret",
    "WebhookTest",
    "Worker",
)
