"""Answers of models: OpenAI's shapes. What an engine adds to them is passed on."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

Json = Any


class Completion(TypedDict):
    """The answer to ``POST /v1/chat/completions`` or ``/v1/completions``, as the engine gives it."""

    id: str
    object: str
    created: int
    model: str | None
    choices: list[dict[str, Json]]
    usage: NotRequired[dict[str, Json] | None]


class Embeddings(TypedDict):
    """The answer to ``POST /v1/embeddings``, as the engine gives it."""

    object: str
    data: list[dict[str, Json]]
    model: str | None
    usage: NotRequired[dict[str, Json] | None]
