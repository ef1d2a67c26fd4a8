"""Curves of what a job reported."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Series(TypedDict):
    """One curve: ``steps``, ``times`` (RFC 3339) and ``values`` have one entry a point, in order.

    ``attempt`` is null for the final trajectory; ``total`` counts the points before they were thinned out.
    """

    name: str
    attempt: int | None
    steps: list[int]
    times: list[str]
    values: list[float]
    total: int


class Metrics(TypedDict):
    """Some curves of a job as of position ``seq`` of the log.

    ``names`` lists every curve that the job has; ``more`` says that some of those that were asked for are left out.
    """

    object: Literal["metrics"]
    job: str
    seq: int
    names: list[str]
    more: bool
    series: list[Series]
