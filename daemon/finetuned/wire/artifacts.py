"""What a job left on disk: checkpoints, and artifacts with their files."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Json = Any


class Checkpoint(TypedDict):
    """A state that a run can go on from. ``from_checkpoint`` takes its ``step`` or its ``id``; ``created_at`` is RFC 3339."""

    id: str
    object: Literal["checkpoint"]
    step: int
    attempt: int
    path: str
    bytes: int
    metrics: dict[str, Json]
    created_at: str | None


class CheckedCheckpoint(Checkpoint):
    """A checkpoint as its files are now.

    ``validity`` is ``complete`` if manifest and sizes hold, ``whole`` if every byte was read and does, or ``damaged``, and
    ``problem`` says how. ``resumes`` marks the one that the job would go on from.
    """

    validity: Literal["complete", "whole", "damaged"]
    problem: str | None
    resumes: bool


class Artifact(TypedDict):
    """A result on disk. ``id`` is its name; of several of one name the newest attempt's is meant unless one is named."""

    id: str
    object: Literal["artifact"]
    name: str
    kind: str
    attempt: int
    path: str
    bytes: int
    created_at: str | None


class ArtifactFile(TypedDict):
    """One file of an artifact: its path below the artifact, its size and its CRC-32."""

    path: str
    bytes: int
    crc32: int


class ArtifactContents(Artifact):
    """An artifact with a page of its files, as its manifest lists them. ``next_after`` is what the next page takes."""

    files: list[ArtifactFile]
    has_more: bool
    next_after: str | None
