"""Files, as OpenAI's clients send, list, read and delete them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from finetuned import wire
from finetuned.api.call import IDEMPOTENCY_REPLAYED, Call
from finetuned.api.doors import json
from finetuned.api.download import send
from finetuned.api.form import Form
from finetuned.api.lists import listing
from finetuned.api.parameters import Query, Whole
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.files import PURPOSES
from finetuned.files.uploads import About
from finetuned.json_numbers import Integer
from finetuned.refusals import invalid
from finetuned.views import files as views

LARGEST_PAGE = 10_000
LONGEST_NAME = 255  # characters
SHORTEST_S, LONGEST_S = 3600, 2_592_000  # that a file may be kept
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"


class FilesQuery(Query):
    """Which files."""

    purpose: str | None = Field(default=None, max_length=64, description="only those of this purpose")
    limit: Annotated[Whole, Field(ge=1, le=LARGEST_PAGE, description="how many items a page has at most")] = (
        LARGEST_PAGE
    )
    order: Literal["asc", "desc"] = Field(default="desc", description="by the time of their creation")
    after: str | None = Field(default=None, max_length=64, description="the last id of the page before")


class ExpiresAfter(BaseModel):
    """How long a file is kept."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    anchor: Literal["created_at"] = Field(description="from when on: always `created_at`")
    seconds: Integer = Field(ge=SHORTEST_S, le=LONGEST_S, description="how many seconds")


class UploadForm(BaseModel):
    """The form of ``POST /v1/files``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    file: bytes = Field(description="the file")
    purpose: Annotated[str, WithJsonSchema({"type": "string", "enum": list(PURPOSES)})] = Field(
        description="what it is for"
    )
    anchor: Annotated[str | None, WithJsonSchema({"type": "string", "enum": ["created_at"]})] = Field(
        default=None, alias=ANCHOR, description="from when on it is kept: always `created_at`"
    )
    seconds: Annotated[
        str | None, WithJsonSchema({"type": "integer", "minimum": SHORTEST_S, "maximum": LONGEST_S})
    ] = Field(default=None, alias=SECONDS, description="how many seconds it is kept")


FIELDS = tuple(field.alias or name for name, field in UploadForm.model_fields.items() if name != "file")


async def upload(call: Call) -> web.Response | wire.File:
    """Take a file in. The form has the fields `file`, `purpose`, `expires_after[anchor]` and `expires_after[seconds]`.

    They may come in any order; the file is streamed to disk. Files for batches expire after 30 days unless they say
    otherwise, others never do.
    """
    form = Form(call.request, file="file", known=FIELDS, stall_s=call.config.upload_stall_s)
    head = await form.until_file()
    if "purpose" in form.fields:
        check_purpose(form.fields["purpose"])  # before the file is taken in for nothing

    async def about() -> About:
        await form.rest()
        return _about(head.filename, form.fields)

    file = await call.commands.files.upload(
        form.content(), about, actor=call.caller.actor, foreseen=form.foreseen, once=call.once
    )
    answer = json(views.file(file))
    if call.once is not None and call.once.replayed:
        answer.headers[IDEMPOTENCY_REPLAYED] = "true"
    return answer


async def listed(call: Call, query: FilesQuery) -> wire.Page[wire.File]:
    """The files that can be named, the newest first."""
    found, has_more = await call.queries.files.listed(
        purpose=query.purpose, order=query.order, after=query.after, limit=query.limit
    )
    return listing([views.file(each) for each in found], has_more=has_more)


async def show(call: Call, *, file_id: str) -> wire.File:
    """One file."""
    return views.file(await call.queries.files.file(file_id))


async def content(call: Call, *, file_id: str) -> web.StreamResponse:
    """A file's content, or a range of it. The ETag of a file that was sent is its SHA-256."""
    found = await call.queries.files.content(file_id)
    return await send(
        call,
        found.blocks,
        size=found.file.bytes,
        etag=found.etag,
        name=found.file.filename,
        media="application/octet-stream",
    )


async def delete(call: Call, *, file_id: str) -> wire.Deleted:
    """Free a file's name. Its content goes when no live job reads it."""
    await call.commands.files.delete(file_id, actor=call.caller.actor)
    return {"id": file_id, "object": "file", "deleted": True}


def check_purpose(purpose: str) -> None:
    """Refuse what no file that is sent is for. Raises ``InvalidRequestError``."""
    if purpose not in PURPOSES:
        raise InvalidRequestError(
            f"purpose: {purpose[:80]!r} is none that a file can be sent for; it may be {', '.join(PURPOSES)}.",
            param="purpose",
            code="invalid_purpose",
        )


def checked_name(filename: str | None) -> str:
    """A file's name without folders. Raises ``InvalidRequestError`` for one that is too long or holds control characters."""
    name = (filename or "").replace("\\", "/").rpartition("/")[2] or "file"
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidRequestError(
            f"filename must have at most {LONGEST_NAME} characters, and none that cannot be printed; rename the file.",
            param="file",
            code="invalid_name",
        )
    return name


def _about(filename: str | None, fields: dict[str, str]) -> About:
    purpose = fields.get("purpose")
    if purpose is None:
        raise InvalidRequestError(
            f"purpose is missing; it may be {', '.join(PURPOSES)}.", param="purpose", code="missing_parameter"
        )
    check_purpose(purpose)
    return About(filename=checked_name(filename), purpose=purpose, expires_after_s=_kept_s(fields))


def _kept_s(fields: dict[str, str]) -> int | None:
    given: dict[str, Any] = {
        name: fields[field] for name, field in (("anchor", ANCHOR), ("seconds", SECONDS)) if field in fields
    }
    if not given:
        return None
    seconds = given.get("seconds", "")
    if seconds.isascii() and seconds.isdigit() and len(seconds) <= 19:
        given["seconds"] = int(seconds)
    try:
        return ExpiresAfter.model_validate(given).seconds
    except ValidationError as error:
        raise invalid(error, ExpiresAfter.model_fields, prefix="expires_after.") from None
