"""Uploads in parts, as OpenAI's clients send what is large."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from finetuned import wire
from finetuned.api.call import Call
from finetuned.api.files import ExpiresAfter, check_purpose, checked_name
from finetuned.api.form import Form
from finetuned.files.uploads import MOST_PARTS, About
from finetuned.json_numbers import Integer
from finetuned.views import files as views


class UploadRequest(BaseModel):
    """The body of ``POST /v1/uploads``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    bytes: Integer = Field(ge=1, le=1 << 53, description="how many bytes the whole file has")
    filename: str = Field(min_length=1, max_length=255, description="the file's name")
    mime_type: str = Field(max_length=255, description="taken for OpenAI's clients; the purpose decides")
    purpose: str = Field(
        max_length=64, description="what the file is for: fine-tune, batch, user_data, evals, vision"
    )
    expires_after: ExpiresAfter | None = Field(
        default=None,
        description="`anchor` and `seconds`: how long the file is kept; null as its purpose says",
    )


class PartForm(BaseModel):
    """The form of ``POST /v1/uploads/{upload_id}/parts``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    data: bytes = Field(description="the part, of 64 MiB at most")


class CompleteRequest(BaseModel):
    """The body of ``POST /v1/uploads/{upload_id}/complete``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    part_ids: list[str] = Field(
        min_length=1, max_length=MOST_PARTS, description="the parts in the file's order"
    )
    md5: str | None = Field(
        default=None, max_length=64, description="the whole file's MD5 in hexadecimal; another is refused"
    )


async def create(call: Call, body: UploadRequest) -> wire.Upload:
    """Begin an upload in parts. Its parts go an hour later, or at a restart of the daemon, if it is not completed."""
    check_purpose(body.purpose)
    kept_s = None if body.expires_after is None else body.expires_after.seconds
    about = About(filename=checked_name(body.filename), purpose=body.purpose, expires_after_s=kept_s)
    return views.upload(await call.commands.files.begin(about, body.bytes, actor=call.caller.actor))


async def add_part(call: Call, *, upload_id: str) -> wire.UploadPart:
    """Send a part, of 64 MiB at most, as the form's field `data`. Parts may be sent in any order, and at once."""
    form = Form(call.request, file="data", known=(), stall_s=call.config.upload_stall_s)
    await form.until_file()
    part = await call.commands.files.add_part(upload_id, form.content(), form.rest, foreseen=form.foreseen)
    return views.part(part, upload_id)


async def complete(call: Call, body: CompleteRequest, *, upload_id: str) -> wire.Upload:
    """Make a file of the parts. Asking again with the same parts gives the same file, also after a restart."""
    upload = await call.commands.files.complete(upload_id, body.part_ids, body.md5, actor=call.caller.actor)
    return views.upload(upload)


async def cancel(call: Call, *, upload_id: str) -> wire.Upload:
    """Give an upload up; its parts go. Asking again changes nothing."""
    return views.upload(await call.commands.files.cancel(upload_id))
