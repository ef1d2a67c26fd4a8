"""The parameters of the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class TransformersParams(BaseModel):
    """How the embedded engine holds its model."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="The base model: a directory, a registered name or a hub id.")
    dtype: Dtype = Field(
        "auto",
        description="The type that weights are held in. auto: bfloat16 on GPUs that have it, else float32.",
    )
    at_once: int = Field(
        32, ge=1, le=1024, description="Completions that are computed at once; others wait for a place."
    )
    max_context: int | None = Field(
        None,
        ge=16,
        description="Tokens that a prompt and its completion may have together; the model's own limit if not set.",
    )
    cache_tokens: int | None = Field(
        None,
        ge=16,
        description="Tokens that the cache of keys and values has room for. Not set: as many as fit into a quarter of the "
        "host's free memory, or into four fifths of a GPU's once the model is there; at most max_context for each of "
        "at_once.",
    )
    max_loras: int = Field(
        8,
        ge=1,
        description="Adapters that are kept loaded. For one more, the least recently used that no request uses is let go; "
        "more are there only while all are in use.",
    )
    packed: bool = Field(
        True,
        description="Whether Llama, Mistral, Qwen2 and Qwen3 in float32 on the CPU are computed with packed weights; false "
        "takes the library's way for every model.",
    )
    trust_remote_code: bool = Field(
        False,
        description="Whether to run code from the model's repository. The daemon's operator must allow it, too.",
    )
