"""What goes over the wire: the shapes of the daemon's answers, one ``TypedDict`` each.

``finetuned.views`` makes them, ``finetuned.client`` returns them, and OpenAPI is generated from them.
"""

from __future__ import annotations

from finetuned.wire.access import NewToken, RevokedToken, Token
from finetuned.wire.artifacts import Artifact, ArtifactContents, ArtifactFile, CheckedCheckpoint, Checkpoint
from finetuned.wire.datasets import Dataset, DatasetAudit, DatasetPreview, DatasetRow, DatasetVersion
from finetuned.wire.devices import Device, Holder
from finetuned.wire.drain import Drain
from finetuned.wire.errors import Error, ErrorAnswer
from finetuned.wire.estimates import Check, DryRun, Duration, Fix, Start
from finetuned.wire.events import Event
from finetuned.wire.health import Alive, Ready
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
from finetuned.wire.workers import Worker

__all__ = (
    "Alert",
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
    "Check",
    "CheckedCheckpoint",
    "Checkpoint",
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
    "Error",
    "ErrorAnswer",
    "Event",
    "FilesRemoved",
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
    "VerifyReport",
    "Worker",
)
