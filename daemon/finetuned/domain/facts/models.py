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


@dataclass(frozen=True, kw_only=True)
class AliasSet(Fact):
    """A name such as ``support-bot@production`` stands for another model from now on."""

    type: ClassVar[str] = "alias.set"
    alias: str
    model: str
    previous: str | None = None  #: what it stood for before
    is_rollback: bool = False  #: whether it goes back to what it stood for earlier


@dataclass(frozen=True, kw_only=True)
class AliasDeleted(Fact):
    """The alias stands for nothing any more."""

    type: ClassVar[str] = "alias.deleted"
    alias: str
