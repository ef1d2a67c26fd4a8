"""Datasets, a few of their rows, and what jobs found in them."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Json = Any


class DatasetVersion(TypedDict):
    """One content. ``version`` is its SHA-256; ``rows`` is null where they were not counted; ``created_at`` is RFC 3339.

    ``source`` is ``upload``, or ``path`` for a file that stays where it was on the server.
    """

    version: str
    path: str
    bytes: int
    format: str
    source: str
    rows: int | None
    created_at: str
    created_by: str


class Dataset(TypedDict):
    """A dataset. ``id`` is its name, ``version`` the newest; jobs refer to it as ``reference``. Versions are newest first."""

    id: str
    object: Literal["dataset"]
    reference: str
    version: str
    bytes: int
    format: str
    rows: int | None
    created_at: str
    versions: list[DatasetVersion]


class DatasetRow(TypedDict):
    """A row: its line in JSONL and CSV, its place in JSON, from 1. ``cut``: something of it is left out.

    ``problem`` says why there is no value.
    """

    row: int
    value: Json
    cut: bool
    problem: str | None


class DatasetPreview(TypedDict):
    """Some rows of a version. ``next_after`` is what the next page's ``after`` takes."""

    object: Literal["dataset.preview"]
    id: str
    version: str
    format: str
    data: list[DatasetRow]
    has_more: bool
    next_after: str | None


class DatasetAudit(TypedDict):
    """What a job found when it read a version through. ``created_at`` is RFC 3339."""

    object: Literal["dataset.audit"]
    job: str
    version: str
    created_at: str
    report: dict[str, Json]
