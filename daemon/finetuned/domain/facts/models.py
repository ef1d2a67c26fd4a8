"""Models that can be named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from finetuned.domain.facts.base import Fact, Json


@dataclass(frozen=True, kw_only=True)
class ModelRegistered(Fact):
    """A model can be named from now on. A second registration of a name replaces the first."""

    type: ClassVar[str] = "model.registered"
    name: str
    path: str
    kind: str
    base: str | None
    job: str | None
    lineage: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelDeleted(Fact):
    """The name is free again; files are kept."""

    type: ClassVar[str] = "model.deleted"
    name: str
