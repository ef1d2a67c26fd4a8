"""How a vLLM engine is set up."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class VLLMParams(BaseModel):
    """Parameters of the engine ``vllm``. What is not set is as vLLM has it."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(description="The base model: a directory or a hub id.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="The type that it computes in; auto takes float32 on CPUs, where the others are slower, and else"
        " the model's own.",
    )
    runner: Literal["auto", "generate", "pooling"] = Field(
        "auto",
        description="What the model is for: `generate` text, or `pooling`, which makes embeddings. auto: what its files say.",
    )
    max_model_len: int | None = Field(
        None, ge=1, description="Tokens that a prompt and its completion may have together."
    )
    max_num_seqs: int | None = Field(None, ge=1, description="Requests that are computed at once.")
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description="The share of a GPU's memory that it may take."
    )
    kv_cache_gib: int = Field(1, ge=1, description="The size of the cache on CPUs, in GiB.")
    max_loras: int = Field(
        4,
        ge=0,
        description="Adapters that one step may use; 0 leaves adapters out, which is faster where none is needed.",
    )
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = Field(64, description="The highest rank of an adapter.")
    enforce_eager: bool | None = Field(
        None, description="Whether it starts at once and compiles nothing. Not set: on CPUs."
    )
    max_logprobs: int = Field(20, ge=0, description="The most `top_logprobs` that a request may ask for.")
    prefix_caching: bool | None = Field(None, description="Whether common beginnings of prompts are kept.")
    tool_call_parser: str | None = Field(
        None, description="The parser of tool calls, by its name in vLLM; without one `tools` are refused."
    )
