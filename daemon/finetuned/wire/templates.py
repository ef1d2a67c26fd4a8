"""Templates."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Json = Any


class Template(TypedDict):
    """A job request kept under a name: what ``POST /v1/jobs`` takes, as far as it says. ``id`` is its name."""

    id: str
    object: Literal["template"]
    name: str
    version: int
    description: str | None
    request: dict[str, Json]
    saved_at: str
    saved_by: str
