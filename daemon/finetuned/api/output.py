"""What a job's processes printed: as text, searched, and counted."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator, Field

from finetuned import wire
from finetuned.api import following
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.api.parameters import Flag, Limit, Query, Whole
from finetuned.domain.errors import InvalidRequestError
from finetuned.output.files import OutputGapError, Position
from finetuned.output.lines import Level
from finetuned.output.search import Hit, Wanted

LONGEST_TAIL = 1_000_000  # lines
LARGEST_ATTEMPT = 1_000_000
POSITION = "Output-Position"
_POSITION = re.compile(r"(\d{1,7}):(\d{1,18})", re.ASCII)


def _readable_position(value: str) -> str:
    if not _POSITION.fullmatch(value):
        raise ValueError(f"must be ATTEMPT:OFFSET, such as 1:0; got {value[:40]!r}")
    return value


class OutputQuery(Query):
    """Which part of a job's output."""

    tail: Whole | None = Field(default=None, ge=0, le=LONGEST_TAIL, description="only so many last lines")
    follow: Flag = Field(default=False, description="go on until the job (or the attempt) has ended")
    attempt: Whole | None = Field(default=None, ge=0, le=LARGEST_ATTEMPT, description="only this attempt's")
    after: Annotated[str, AfterValidator(_readable_position)] | None = Field(
        default=None,
        description="from this position on: `ATTEMPT:OFFSET`, the header `Output-Position` of an earlier answer with"
        " the bytes that were received of it added to its offset",
        examples=["1:0"],
    )


class SearchQuery(Query):
    """Which lines of a job's output."""

    q: str = Field(
        default="", max_length=1000, description="a text that the lines contain, whatever its case"
    )
    level: Level | None = Field(default=None, description="only lines that look like this level")
    attempt: Whole | None = Field(default=None, ge=0, le=LARGEST_ATTEMPT, description="only this attempt's")
    after: str | None = Field(default=None, description="the next_after of the page before")
    limit: Limit = 100


async def show(call: Call, query: OutputQuery, *, job_id: str) -> web.StreamResponse:
    """What a job's processes printed, as text."""
    position, blocks = await call.queries.output.read(
        job_id, tail=query.tail, after=_after(query), follow=query.follow, attempt=query.attempt
    )
    headers = {
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
        POSITION: f"{position[0]}:{position[1]}",
    }
    response = web.StreamResponse(headers=headers)
    response.content_type = "text/plain"
    response.charset = "utf-8"
    async with aclosing(blocks):
        await response.prepare(call.request)
        await _write(call, response, blocks)
    return response


def _after(query: OutputQuery) -> Position | None:
    match = None if query.after is None else _POSITION.fullmatch(query.after)
    if match is None:
        return None
    if query.tail is not None:
        raise InvalidRequestError("tail and after both say where to begin; give one of them.", param="tail")
    return int(match[1]), int(match[2])


async def _write(call: Call, response: web.StreamResponse, blocks: AsyncIterator[bytes]) -> None:
    try:
        await following.write(call, response, blocks)
    except OutputGapError:
        # An end without the closing chunk: who counts its bytes comes back, and is told where the rest begins.
        if call.request.transport is not None:
            call.request.transport.abort()


async def search(call: Call, query: SearchQuery, *, job_id: str) -> wire.Page[wire.LogLine]:
    """Lines of a job's output that contain a text, or look like a level."""
    wanted = Wanted(query.q, query.level, query.attempt)
    page = await call.queries.output.search(
        job_id, wanted, after=query.after, limit=query.limit, check=call.check_wanted
    )
    return listing([_line(each) for each in page.hits], has_more=page.has_more, next_after=str(page.after))


async def counts(call: Call, *, job_id: str) -> wire.LogCounts:
    """How many lines, errors and warnings a job printed. One request counts a bounded piece; the next goes on."""
    found = await call.queries.output.counts(job_id, check=call.check_wanted)
    return {
        "object": "log_counts",
        "job": job_id,
        "lines": sum(each.lines for each in found.values()),
        "errors": sum(each.errors for each in found.values()),
        "warnings": sum(each.warnings for each in found.values()),
        "is_complete": all(each.is_end for each in found.values()),
        "attempts": [
            {"attempt": number, "lines": each.lines, "errors": each.errors, "warnings": each.warnings}
            for number, each in found.items()
        ],
    }


def _line(hit: Hit) -> wire.LogLine:
    return {
        "id": f"{hit.attempt}:{hit.line.offset}",
        "object": "log_line",
        "attempt": hit.attempt,
        "line": hit.line.number,
        "offset": hit.line.offset,
        "level": hit.level,
        "text": hit.text,
        "is_cut": hit.is_cut,
    }
