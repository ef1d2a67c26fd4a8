"""Datasets that can be named: each name has versions, each version is its content's hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from finetuned.domain.facts.base import Fact


@dataclass(frozen=True, kw_only=True)
class DatasetRegistered(Fact):
    """A version of a dataset is complete on disk and can be named from now on."""

    type: ClassVar[str] = "dataset.registered"
    name: str
    version: str  #: SHA-256 of its content, in hexadecimal
    path: str
    bytes: int
    format: str  #: how its file is written: jsonl, json, csv, parquet
    source: str  #: upload, or path for a file that stays where it was
    rows: int | None = None  #: where they were counted
    identity: str | None = None  #: of a file that stays where it was: inode, times of modification and change


@dataclass(frozen=True, kw_only=True)
class DatasetDeleted(Fact):
    """Versions cannot be named any more, and the name neither if these were all. Uploaded content goes with its last user."""

    type: ClassVar[str] = "dataset.deleted"
    name: str
    versions: list[str]  #: those that are gone
