"""Where a model comes from and what was made of it, and what makes sense next for a job."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from finetuned.wire.artifacts import Artifact


class LineageDataset(TypedDict):
    """Data that a model was trained on: its name or path, and its version (SHA-256) if that is known."""

    name: str
    version: str | None


class LineageJob(TypedDict):
    """The job that made a model. ``kind`` and ``state`` are null if it was deleted since."""

    id: str
    kind: str | None
    state: str | None
    datasets: list[LineageDataset]
    artifacts: list[Artifact]


class LineageModel(TypedDict):
    """A model of the chain. One that is not ``registered`` is only known by name, such as one of a hub."""

    name: str
    registered: bool
    kind: str | None
    path: str | None
    base: str | None
    adapter: str | None
    created_at: str | None
    job: LineageJob | None


class DerivedModel(TypedDict):
    """A model made from another one."""

    name: str
    kind: str
    base: str
    job: str | None
    created_at: str


class Lineage(TypedDict):
    """Where a model comes from (``bases``: the nearest first, hub models last) and what was made from it (``derived``)."""

    object: Literal["lineage"]
    model: LineageModel
    bases: list[LineageModel]
    derived: list[DerivedModel]


class NextStep(TypedDict):
    """Something that makes sense now: what, why, and the command that does it, if one does."""

    action: str
    why: str
    command: str | None
