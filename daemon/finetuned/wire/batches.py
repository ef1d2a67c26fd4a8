"""Batches as OpenAI's clients read them. Times are Unix seconds."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from typing_extensions import TypedDict

Json = Any
Item = TypeVar("Item")

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class BatchProblem(TypedDict):
    """Something wrong with the input, at a line that counts from 1, or with the batch as a whole."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchList(TypedDict, Generic[Item]):
    """A list within a batch."""

    object: Literal["list"]
    data: list[Item]


class BatchCounts(TypedDict):
    """How many requests there are, and how many have their result."""

    total: int
    completed: int
    failed: int


class CachedTokens(TypedDict):
    """Tokens of prompts that the engine had computed before."""

    cached_tokens: int


class ReasoningTokens(TypedDict):
    """Generated tokens that were reasoning."""

    reasoning_tokens: int


class BatchUsage(TypedDict):
    """Tokens of all answers."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class BatchProgress(TypedDict):
    """What OpenAI's object has no place for. ``job`` and ``state`` are those of ``GET /v1/jobs/{job_id}``."""

    job: str
    state: str
    phase: str | None
    priority: int
    attempt: int
    wait_reason: str | None
    queue_position: int | None
    cancel_reason: str | None
    progress: dict[str, Json] | None


class Batch(TypedDict):
    """A job of the kind batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str
    errors: BatchList[BatchProblem] | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
    x_finetuned: BatchProgress


class BatchPage(TypedDict):
    """A page of batches, newest first. The last item's id is the next page's ``after``."""

    object: Literal["list"]
    data: list[Batch]
    has_more: bool
    first_id: str | None
    last_id: str | None
