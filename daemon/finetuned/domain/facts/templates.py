"""Templates: job requests that are kept under a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from finetuned.domain.facts.base import Fact, Json


@dataclass(frozen=True, kw_only=True)
class TemplateSaved(Fact):
    """A template has a new version. Jobs that were made from an earlier one stay as they are."""

    type: ClassVar[str] = "template.saved"
    name: str
    version: int
    request: dict[str, Json]  #: as ``POST /v1/jobs`` takes it, as far as the template says
    description: str | None = None


@dataclass(frozen=True, kw_only=True)
class TemplateDeleted(Fact):
    """The name is free again."""

    type: ClassVar[str] = "template.deleted"
    name: str
