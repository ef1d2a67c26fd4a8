"""Aliases of models."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Alias(TypedDict):
    """A name that stands for a model, and for what before: ``history``, the newest first."""

    id: str
    object: Literal["alias"]
    model: str
    history: list[str]
    set_at: str
    set_by: str
