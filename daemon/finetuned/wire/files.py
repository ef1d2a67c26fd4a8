"""Files and uploads, in OpenAI's shapes. Times are Unix seconds."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]


class File(TypedDict):
    """A file. ``expires_at`` is null for one that is kept until it is deleted."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class UploadPart(TypedDict):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


class Upload(TypedDict):
    """An upload in parts. ``bytes`` is what the whole file will have; ``file`` is null until it is completed."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: UploadStatus
    file: File | None
