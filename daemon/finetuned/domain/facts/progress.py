"""What a job's workers report on the way: progress, audits, evaluations, checkpoints, artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from finetuned.domain.facts.base import Fact, Json


@dataclass(frozen=True, kw_only=True)
class JobPhase(Fact):
    """What the worker is doing now: loading_model, training, evaluating, saving, …"""

    type: ClassVar[str] = "job.phase"
    phase: str


@dataclass(frozen=True)
class JobProgress(Fact):
    """A step was done. The data are the figures themselves; see the table of progress fields."""

    type: ClassVar[str] = "job.progress"
    figures: dict[str, Json]

    def to_data(self) -> dict[str, Json]:
        """The figures as they are."""
        return self.figures

    @classmethod
    def from_data(cls, data: Mapping[str, Json]) -> Self:
        """The fact behind stored figures."""
        return cls(dict(data))


@dataclass(frozen=True, kw_only=True)
class JobAdvice(Fact):
    """A setting is worth changing: which, why, and the figures behind it."""

    type: ClassVar[str] = "job.advice"
    setting: str
    message: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DatasetAudited(Fact):
    """Validation read a dataset through: counts, masked share, cut rows, rows without an answer, hash."""

    type: ClassVar[str] = "dataset.audited"
    report: dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class EvaluationRecorded(Fact):
    """Figures of an evaluation. Rows and answers are in an artifact, never here."""

    type: ClassVar[str] = "evaluation.recorded"
    name: str
    metrics: dict[str, float]
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Fact):
    """A checkpoint is complete on disk: its manifest was written before this event."""

    type: ClassVar[str] = "checkpoint.saved"
    attempt: int
    step: int
    path: str
    bytes: int
    metrics: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CheckpointDiscarded(Fact):
    """Retention removed a checkpoint."""

    type: ClassVar[str] = "checkpoint.discarded"
    path: str


@dataclass(frozen=True, kw_only=True)
class ArtifactPublished(Fact):
    """A result is complete on disk, with the size and CRC-32 of each of its files."""

    type: ClassVar[str] = "artifact.published"
    attempt: int
    name: str
    kind: str
    path: str
    bytes: int
    files: list[dict[str, Json]] = field(default_factory=list)
