"""Models."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Json = Any


class Model(TypedDict):
    """A registered model: OpenAI's shape, with what this daemon knows beside it. ``created`` is in Unix seconds."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    path: str
    kind: str
    base: str | None
    job: str | None
    lineage: dict[str, Json]
