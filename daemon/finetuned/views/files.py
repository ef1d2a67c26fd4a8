"""How files and uploads look to the outside: as OpenAI's. Pure."""

from __future__ import annotations

from typing import cast

from finetuned import wire
from finetuned.domain.registers import File
from finetuned.files.uploads import Part, Upload

SECOND_US = 1_000_000


def file(each: File) -> wire.File:
    """A file."""
    return {
        "id": each.id,
        "object": "file",
        "bytes": each.bytes,
        "created_at": each.created_at // SECOND_US,
        "expires_at": None if each.expires_at is None else each.expires_at // SECOND_US,
        "filename": each.filename,
        "purpose": each.purpose,
        "status": "processed",
        "status_details": None,
    }


def upload(each: Upload) -> wire.Upload:
    """An upload, and its file once there is one. While it is put together it is ``pending``."""
    status = "pending" if each.status == "completing" else each.status
    return {
        "id": each.id,
        "object": "upload",
        "bytes": each.bytes,
        "created_at": each.created_at // SECOND_US,
        "expires_at": each.expires_at // SECOND_US,
        "filename": each.about.filename,
        "purpose": each.about.purpose,
        "status": cast("wire.UploadStatus", status),
        "file": None if each.file is None else file(each.file),
    }


def part(each: Part, upload_id: str) -> wire.UploadPart:
    """A part of an upload."""
    return {
        "id": each.id,
        "object": "upload.part",
        "created_at": each.created_at // SECOND_US,
        "upload_id": upload_id,
    }
