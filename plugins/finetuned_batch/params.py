"""Parameters of the kind ``batch``. The daemon reads this module."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]

MAX_REQUESTS: Final = 50_000  # OpenAI's limits of a batch
MAX_BYTES: Final = 200 * 1_000_000
DAY_S: Final = 86_400


class BatchParams(BaseModel):
    """Which requests to ask, and of which model."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(
        min_length=1,
        description="The requests, in OpenAI's format of a batch: file:ID, dataset:NAME or a path on the server.",
    )
    endpoint: Endpoint = Field(
        default="/v1/chat/completions", description="Where the requests belong; the same for all of them."
    )
    model: str = Field(
        min_length=1,
        description="The model that answers: a registered name, an alias, a directory or a hub id. The requests name the same.",
    )
    engine: str | None = Field(
        default=None, description="The kind of engine that answers; the daemon's default if not set."
    )
    engine_options: dict[str, Any] = Field(
        default_factory=dict, description="Parameters of the engine that differ from the operator's."
    )
    window: int = Field(
        default=256, ge=1, le=10_000, description="Requests that the engine is asked at once, at most."
    )
    completion_window: int | None = Field(
        default=DAY_S,
        ge=1,
        le=365 * DAY_S,
        description="Seconds after its submission in which it is to be done, or it expires; null for as long as it takes.",
    )
    output_expires_after_s: int | None = Field(
        default=None,
        ge=3600,
        le=30 * DAY_S,
        description="Seconds that the files it makes are kept; null takes 30 days.",
    )
    max_requests: int = Field(
        default=MAX_REQUESTS, ge=1, le=10_000_000, description="Requests that the file may hold."
    )
    max_bytes: int = Field(default=MAX_BYTES, ge=1, le=1 << 40, description="Bytes that the file may have.")
