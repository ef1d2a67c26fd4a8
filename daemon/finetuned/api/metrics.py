"""A job's curves."""

from __future__ import annotations

from functools import partial
from typing import Literal

import anyio.to_thread
from pydantic import Field

from finetuned import views, wire
from finetuned.api.call import Call, Encoded
from finetuned.api.doors import encode
from finetuned.api.parameters import At, Names, Query, Whole
from finetuned.results.curves import MOST_POINTS, Found
from finetuned.results.series import Series


class MetricsQuery(Query):
    """Which curves, and how fine."""

    names: Names | None = Field(
        default=None, description="only these series, separated by commas; default: the first 100 that occur"
    )
    points: Whole = Field(
        default=1000,
        ge=4,
        le=MOST_POINTS,
        description="about how many points a series has at most: rounded up to four. Of each stretch that is thinned"
        " out, the first, the least, the greatest and the last point stay",
    )
    attempts: Literal["final", "all"] = Field(
        default="final",
        description="`final`: each step as it was done last; `all`: a series for each attempt, with the steps that a"
        " later one did again",
    )
    at: At | None = None


async def show(call: Call, query: MetricsQuery, *, job_id: str) -> Encoded[wire.Metrics]:
    """The series of a job's progress and evaluations."""
    job = await call.queries.job(job_id)
    found = await call.queries.reading.curves(
        job,
        points=query.points,
        names=query.names,
        each_attempt=query.attempts == "all",
        until=None if query.at is None else await call.queries.position(query.at),
    )
    return Encoded(await anyio.to_thread.run_sync(partial(_encoded, job_id, found)))


def _encoded(job_id: str, found: Found) -> bytes:
    answer: wire.Metrics = {
        "object": "metrics",
        "job": job_id,
        "seq": found.seq,
        "names": found.names,
        "more": found.more,
        "series": [_series(each) for each in found.series],
    }
    return encode(answer)


def _series(each: Series) -> wire.Series:
    return {
        "name": each.name,
        "attempt": each.attempt,
        "steps": [step for _, step, _, _ in each.points],
        "times": [views.time(at) for _, _, at, _ in each.points],
        "values": [value for _, _, _, value in each.points],
        "total": each.total,
    }
