"""Files of the OpenAI API: what batches and fine-tunings read, and what they made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from finetuned.domain.facts.base import Fact


@dataclass(frozen=True, kw_only=True)
class FileCreated(Fact):
    """A file is complete on disk and can be named from now on."""

    type: ClassVar[str] = "file.created"
    id: str
    filename: str
    purpose: str
    path: str
    bytes: int
    sha256: str | None = None  #: in hexadecimal; none for what a job made
    expires_after_s: int | None = None  #: seconds from now on; none for never
    job: str | None = None  #: that made it, and whose files it is among


@dataclass(frozen=True, kw_only=True)
class FileDeleted(Fact):
    """The file cannot be named any more. Its content goes once no live job reads it."""

    type: ClassVar[str] = "file.deleted"
    id: str
    reason: str | None = None  #: expired, or none where somebody asked for it
    job: str | None = None  #: that made it, and whose files its content is among
