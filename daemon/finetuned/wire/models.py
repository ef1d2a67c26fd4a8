"""Models."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Json = Any


class Model(TypedDict):
    """A model under one of its names: OpenAI's shape, with what this daemon knows beside it.

    ``stands_for`` is the registered model that an alias or an ``ft:`` name means, null for its own name; ``created`` is in
    Unix seconds.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    stands_for: str | None
    fine_tuned_model: str | None
    aliases: list[str]
    path: str
    kind: str
    base: str | None
    job: str | None
    lineage: dict[str, Json]
