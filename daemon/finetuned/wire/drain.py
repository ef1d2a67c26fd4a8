"""The end of a daemon, step by step."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Drain(TypedDict):
    """Whether the daemon drains, and how far it is.

    ``mode`` is ``pause``, ``finish``, or null when it does not; ``jobs`` are those that still have processes. The daemon
    stops when there is none.
    """

    object: Literal["drain"]
    mode: Literal["pause", "finish"] | None
    jobs: list[str]
