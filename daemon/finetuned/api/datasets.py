"""Datasets: upload, register, list, look into, audit, delete."""

from __future__ import annotations

import base64
import binascii
import re
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from finetuned import views, wire
from finetuned.api.body import UnsupportedMediaTypeError
from finetuned.api.call import IDEMPOTENCY_REPLAYED, Call
from finetuned.api.doors import json
from finetuned.api.download import send
from finetuned.api.lists import listing, page_of
from finetuned.api.parameters import AbsolutePath, Limit, Name, PageQuery, Query, Whole, spelled
from finetuned.api.streamed import check_encoding, chunks
from finetuned.commands.datasets import AuditPlan, Registered
from finetuned.datasets.content import Format
from finetuned.datasets.preview import MOST_ROWS
from finetuned.domain.errors import InvalidRequestError
from finetuned.views import datasets as views_datasets

CONTENT_DIGEST = "Content-Digest"
_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]*={0,2}):")  # a dictionary of RFC 8941
_HEX = r"^[0-9a-fA-F]{64}$"
Version = Annotated[str, spelled(r"^[0-9a-fA-F]{8,64}$", 64)]
Position = Annotated[str, spelled(r"^[0-9]{1,18}:[0-9]{1,18}$", 37)]


class UploadQuery(Query):
    """What is uploaded."""

    name: Name = Field(description="the dataset's name")
    format: Format | None = Field(
        default=None, description="how the file is written; absent, it is found out"
    )
    sha256: str | None = Field(
        default=None, pattern=_HEX, description="the file's SHA-256 in hexadecimal; another is refused"
    )


class DatasetsQuery(Query):
    """Which datasets."""

    after: str | None = Field(default=None, description="the last id of the page before")
    limit: Limit = 50


class VersionQuery(Query):
    """Which version."""

    version: Version | None = Field(
        default=None, description="a version, or at least 8 digits that it begins with"
    )


class AuditsQuery(PageQuery):
    """Audits of which version."""

    version: Version | None = Field(
        default=None, description="a version, or at least 8 digits that it begins with; absent, all"
    )


class PreviewQuery(Query):
    """Which rows of which version."""

    version: Version | None = Field(
        default=None, description="a version, or at least 8 digits that it begins with; absent, the newest"
    )
    rows: Whole = Field(default=10, ge=1, le=MOST_ROWS, description="how many rows a page has at most")
    after: Position | None = Field(default=None, description="the next_after of the page before")


class RegisterRequest(BaseModel):
    """The body of ``POST /v1/datasets/register``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    name: Name = Field(description="the dataset's name")
    path: AbsolutePath = Field(description="the absolute path of a file on the server")
    format: Format | None = Field(default=None, description="how the file is written; null finds it out")
    sha256: str | None = Field(
        default=None, pattern=_HEX, description="the file's SHA-256 in hexadecimal; another is refused"
    )


class AuditRequest(BaseModel):
    """The body of ``POST /v1/datasets/{name}/audit``."""

    model_config = ConfigDict(extra="forbid", defer_build=True, protected_namespaces=())

    model: str = Field(description="the model whose tokenizer and chat template are used")
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="other parameters of the training that is planned, and `preview_rows`",
    )
    version: Version | None = Field(
        default=None, description="a version, or at least 8 digits that it begins with; null takes the newest"
    )
    kind: str = Field(default="sft-audit", description="the job kind that audits")


async def upload(call: Call, query: UploadQuery) -> web.Response | wire.Dataset:
    """Take the body in as the newest version of a dataset. 200 if it was a version of that name already.

    The body is the file itself, streamed to disk. `Content-Digest: sha-256=:…:` (RFC 9530) is compared if it is sent.
    """
    _check_headers(call.request)
    registered = await call.commands.datasets.upload(
        query.name,
        chunks(call.request),
        actor=call.caller.actor,
        declared=query.format,
        announced=call.request.content_length,
        expected=[each for each in (query.sha256, _digest(call.request)) if each is not None],
        once=call.once,
    )
    return _registered(call, registered)


async def register(call: Call, body: RegisterRequest) -> web.Response | wire.Dataset:
    """Name a file that stays where it is on the server, as the newest version. 200 if it was one of that name already."""
    registered = await call.commands.datasets.register(
        body.name,
        body.path,
        actor=call.caller.actor,
        may_name_paths=call.may_name_paths,
        declared=body.format,
        expected=[] if body.sha256 is None else [body.sha256],
        once=call.once,
    )
    return _registered(call, registered)


async def listed(call: Call, query: DatasetsQuery) -> wire.Page[wire.Dataset]:
    """The datasets, by name."""
    found, has_more = await call.queries.datasets.listed(after=query.after, limit=query.limit)
    return listing([views_datasets.dataset(each) for each in found], has_more=has_more)


async def show(call: Call, *, name: Name) -> wire.Dataset:
    """One dataset with its versions."""
    return views_datasets.dataset(await call.queries.datasets.dataset(name))


async def preview(call: Call, query: PreviewQuery, *, name: Name) -> wire.DatasetPreview:
    """Some rows of a dataset, long values cut. Parquet is shown by an audit only."""
    version = await call.queries.datasets.version(name, query.version)
    page = await call.queries.datasets.preview(
        version, limit=query.rows, after=query.after, check=call.check_wanted
    )
    return views_datasets.preview(name, version, page)


async def content(call: Call, query: VersionQuery, *, name: Name) -> web.StreamResponse:
    """A dataset's file as it was taken in, or a range of it. Its ETag is its version."""
    version = await call.queries.datasets.version(name, query.version)
    return await send(
        call,
        partial(call.queries.datasets.content, version),
        size=version.bytes,
        etag=f'"{version.version}"',
        name=f"{name}.{version.format}",
        media="application/octet-stream",
    )


async def audits(call: Call, query: AuditsQuery, *, name: Name) -> wire.Page[wire.DatasetAudit]:
    """What jobs found in a dataset's content, the newest first."""
    if query.version is not None:
        versions = [await call.queries.datasets.version(name, query.version)]
    else:
        versions = list((await call.queries.datasets.dataset(name)).versions)
    found = views_datasets.audits(versions)
    return page_of(found, lambda each: each["job"], after=query.after, limit=query.limit, key="job")


async def audit(call: Call, body: AuditRequest, *, name: Name) -> wire.Job:
    """Submit a job that reads the dataset as a training would, reports on it, and keeps its first rows as tokens."""
    plan = AuditPlan(model=body.model, params=body.params, version=body.version, kind=body.kind)
    job = await call.commands.audit(
        name, plan, actor=call.caller.actor, may_name_paths=call.may_name_paths, once=call.once
    )
    shown = await call.queries.shown(job.id)
    return views.job(shown.job, shown.wait)


async def delete(call: Call, query: VersionQuery, *, name: Name) -> wire.Deleted:
    """Free a dataset's name, or one version of it. Its files go when no other name and no live job needs them."""
    gone = await call.commands.datasets.delete(name, query.version, actor=call.caller.actor)
    if query.version is None:
        return {"id": name, "object": "dataset", "deleted": True}
    return {"id": f"{name}@{gone[0]}", "object": "dataset.version", "deleted": True}


def _registered(call: Call, registered: Registered) -> web.Response:
    answer = json(views_datasets.dataset(registered.dataset), status=201 if registered.new else 200)
    if call.once is not None and call.once.replayed:
        answer.headers[IDEMPOTENCY_REPLAYED] = "true"
    return answer


def _check_headers(request: web.Request) -> None:
    if request.content_type.startswith("multipart/"):
        raise UnsupportedMediaTypeError(
            "The body is a form; send the file itself as the body (`curl -X POST -T FILE`).",
            code="unsupported_media_type",
        )
    check_encoding(request)


def _digest(request: web.Request) -> str | None:
    """The SHA-256 that the request announces, in hexadecimal; other algorithms are passed over, as RFC 9530 allows."""
    header = ", ".join(request.headers.getall(CONTENT_DIGEST, []))
    if "sha-256" not in header:
        return None
    found = _SHA256.search(header)
    try:
        digest = base64.b64decode(found[1], validate=True) if found else b""
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise InvalidRequestError(
            f"{CONTENT_DIGEST} must read sha-256=:BASE64: with the 32 bytes of the hash; correct it or leave it out.",
            param=CONTENT_DIGEST,
        )
    return digest.hex()
