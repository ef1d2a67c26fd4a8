"""What a job left on disk: its checkpoints, its artifacts, and their files to download."""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath

import anyio.to_thread
from aiohttp import web
from pydantic import Field

from finetuned import views, wire
from finetuned.api.call import Call, Encoded
from finetuned.api.doors import encode
from finetuned.api.download import send
from finetuned.api.lists import page_of
from finetuned.api.output import LARGEST_ATTEMPT
from finetuned.api.parameters import LARGEST_PAGE, Flag, Limit, PageQuery, Query, Whole
from finetuned.results import artifacts
from finetuned.results.artifacts import Contents, shown

FILE_MEDIA = "application/octet-stream"  # whatever it is: a browser must not run what a job wrote
ARCHIVE_MEDIA = "application/zip"


class ArtifactQuery(Query):
    """Which attempt's artifact."""

    attempt: Whole | None = Field(
        default=None,
        ge=0,
        le=LARGEST_ATTEMPT,
        description="only this attempt's; default: the newest of the name",
    )


class ContentsQuery(ArtifactQuery):
    """Which page of an artifact's files."""

    after: str | None = Field(default=None, description="the last path of the page before")
    limit: Limit = LARGEST_PAGE


class CheckpointsQuery(PageQuery):
    """Which page of a job's checkpoints, and how closely they are looked at."""

    verify: Flag = Field(
        default=False,
        description="read them through, the newest first and 64 GiB at most: `validity` is then `whole`",
    )


async def checkpoints(
    call: Call, query: CheckpointsQuery, *, job_id: str
) -> wire.Page[wire.CheckedCheckpoint]:
    """A job's checkpoints that are kept, oldest first, and what their files are now."""
    job = await call.queries.job(job_id)
    looked = await call.queries.reading.checkpoints(job, verify=query.verify, check=call.check_wanted)
    found = [views.checked_checkpoint(each) for each in looked]
    return page_of(found, lambda each: each["id"], after=query.after, limit=query.limit)


async def listed(call: Call, query: PageQuery, *, job_id: str) -> wire.Page[wire.Artifact]:
    """A job's artifacts in the order of their publication."""
    job = await call.queries.job(job_id)
    found = [views.artifact(each) for each in job.artifacts]
    return page_of(found, _of_attempt, after=query.after, limit=query.limit)


async def show(call: Call, query: ContentsQuery, *, job_id: str, name: str) -> Encoded[wire.ArtifactContents]:
    """An artifact with its files."""
    job = await call.queries.job(job_id)
    found, contents = await call.queries.reading.artifact(job, name, query.attempt)
    page = partial(_page, views.artifact(found), contents, query.after, query.limit)
    return Encoded(await anyio.to_thread.run_sync(page))


def _page(artifact: wire.Artifact, contents: Contents, after: str | None, limit: int) -> bytes:
    first = 0 if after is None else contents.files.index(contents.entry(after)) + 1
    files = contents.files[first : first + limit]
    answer: wire.ArtifactContents = {
        **artifact,
        "files": [{"path": shown(each.path), "bytes": each.bytes, "crc32": each.crc32} for each in files],
        "has_more": first + limit < len(contents.files),
        "next_after": shown(files[-1].path) if files else None,
    }
    return encode(answer)


async def file(call: Call, query: ArtifactQuery, *, job_id: str, name: str, path: str) -> web.StreamResponse:
    """One file of an artifact, or a range of it."""
    reading = call.queries.reading
    _, contents = await reading.artifact(await call.queries.job(job_id), name, query.attempt)
    entry = contents.entry(path)
    contents = await reading.looked_at(contents, [entry])
    return await send(
        call,
        partial(reading.file, contents, entry),
        size=entry.bytes,
        etag=f'"{artifacts.tag(contents, [entry])}"',
        name=PurePosixPath(path).name,
        media=FILE_MEDIA,
    )


async def archive(call: Call, query: ArtifactQuery, *, job_id: str, name: str) -> web.StreamResponse:
    """All files of an artifact as a zip archive, or a range of it."""
    reading = call.queries.reading
    _, contents = await reading.artifact(await call.queries.job(job_id), name, query.attempt)
    contents = await reading.looked_at(contents, contents.files)
    layout = await reading.layout(contents)
    return await send(
        call,
        partial(reading.archive, contents, layout),
        size=layout.size,
        etag=f'{layout.etag[:-1]}-{artifacts.tag(contents, contents.files)}"',  # the manifest's, and the files' own
        name=f"{PurePosixPath(name).name}.zip",
        media=ARCHIVE_MEDIA,
    )


def _of_attempt(each: wire.Artifact) -> str:
    """What names an artifact among those of all attempts."""
    return f"{each['attempt']}/{each['name']}"
