"""``POST /v1/batches``: what a request may say, and the job that it asks for. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetuned.domain.errors import FinetunedError, InvalidRequestError
from finetuned.domain.job import Job
from finetuned.domain.registers import File
from finetuned.job_request import PRIORITY_LIMIT, JobRequest
from finetuned.json_numbers import Integer

Json = Any

KIND: Final = "batch"
PURPOSE: Final = "batch"
FILE_SCHEME: Final = "file:"
EXPIRED: Final = "batch_expired"  # how the reason of a cancel begins by which a batch expires
EXPIRY: Final = "batches"  # the actor that says so
WINDOW: Final = "24h"
DAY_S: Final = 86_400
#: runs that may crash before a batch is given up: it goes on where the one before was, so that few are enough for bad luck
MAX_ATTEMPTS: Final = 20
LOOKED_AT: Final = 100  # lines in which the model is looked for
PARAMS: Final = {
    "params.input": "input_file_id",
    "params.endpoint": "endpoint",
    "params.model": "model",
    "params.engine": "engine",
    "file_id": "input_file_id",
}

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]


class OutputExpiresAfter(BaseModel):
    """How long the files are kept that a batch makes."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    anchor: Literal["created_at"] = Field(description="from when on: always `created_at`, of each file")
    seconds: Integer = Field(ge=3600, le=30 * DAY_S, description="how many seconds")


class BatchRequest(BaseModel):
    """The body of ``POST /v1/batches``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    input_file_id: str = Field(
        min_length=1, max_length=64, description="a file with the purpose `batch`, a request a line"
    )
    endpoint: Endpoint = Field(description="where its requests belong")
    completion_window: Literal["24h"] = Field(description="`24h`: what is not done by then expires")
    metadata: (
        dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]] | None
    ) = Field(default=None, max_length=16, description="your own keys; the daemon only keeps them")
    output_expires_after: OutputExpiresAfter | None = Field(
        default=None, description="how long its output is kept; null keeps it for 30 days"
    )
    priority: Integer = Field(
        default=0, ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT, description="ours: higher goes first"
    )
    engine: str | None = Field(
        default=None,
        max_length=100,
        description="ours: the kind of engine that answers; null takes the daemon's",
    )


def completed(request: JobRequest, *, max_requests: int, max_bytes: int) -> JobRequest:
    """A request for a batch that says no limit, with the daemon's; of another kind as it is."""
    if request.kind != KIND:
        return request
    params = {"max_requests": max_requests, "max_bytes": max_bytes, **request.params}
    return request.model_copy(update={"params": params})


def require_within(params: BaseModel, *, max_requests: int, max_bytes: int) -> None:
    """Refuse a batch that allows itself more than the daemon does. Raises ``InvalidRequestError``."""
    for name, limit in (("max_requests", max_requests), ("max_bytes", max_bytes)):
        value = getattr(params, name)
        if value > limit:
            raise InvalidRequestError(
                f"params.{name}: {value} is more than this daemon's {limit}, which only an administrator may exceed; leave"
                " it out.",
                param=f"params.{name}",
                code="invalid_params",
            )


def require_purpose(file: File) -> None:
    """Refuse a file that was uploaded for something else. Raises ``InvalidRequestError``."""
    if file.purpose != PURPOSE:
        raise InvalidRequestError(
            f"input_file_id: the file {file.id} has the purpose {file.purpose}; upload it again with purpose={PURPOSE}.",
            param="input_file_id",
            code="wrong_purpose",
        )


def job_request(body: BatchRequest, model: str, *, max_requests: int, max_bytes: int) -> JobRequest:
    """The job that a request asks for."""
    params: dict[str, Json] = {
        "input": FILE_SCHEME + body.input_file_id,
        "endpoint": body.endpoint,
        "model": model,
        "completion_window": DAY_S,
        "max_requests": max_requests,
        "max_bytes": max_bytes,
    }
    if body.engine is not None:
        params["engine"] = body.engine
    if body.output_expires_after is not None:
        params["output_expires_after_s"] = body.output_expires_after.seconds
    return JobRequest(
        kind=KIND,
        params=params,
        priority=body.priority,
        metadata=body.metadata or {},
        max_attempts=MAX_ATTEMPTS,
    )


def model_of(lines: Iterable[bytes]) -> str:
    """The model of the first line that names one; whether the others name the same is found when all are read.

    Raises ``InvalidRequestError``.
    """
    for raw in lines:
        try:
            model = json.loads(raw)["body"]["model"]
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        if isinstance(model, str) and model:
            return model
    raise InvalidRequestError(
        f"input_file_id: none of the first {LOOKED_AT} lines of the file is a request that names a model; each line is"
        ' {"custom_id": …, "method": "POST", "url": …, "body": {"model": …, …}}.',
        param="input_file_id",
        code="invalid_input_file",
    )


def in_its_words(error: FinetunedError) -> FinetunedError:
    """The refusal of a job, with the request's own name for the parameter."""
    if error.param is not None:
        place = PARAMS.get(error.param, error.param)
        error.message = error.message.replace(f"{error.param}:", f"{place}:")
        error.param = place
    return error


def window_s(job: Job) -> int | None:
    """Seconds after its submission in which a batch is to be done; ``None`` for as long as it takes."""
    window = job.params.get("completion_window", DAY_S)
    if window is None:
        return None
    if isinstance(window, (int, float)) and math.isfinite(window):
        return int(window)
    return DAY_S  # a log may hold what was recorded before it was read as a number


def expires_at(job: Job) -> int | None:
    """When a batch expires, in microseconds since the epoch."""
    window = window_s(job)
    return None if window is None else job.created_at + window * 1_000_000


def require_reason(reason: str | None, *, actor: str) -> None:
    """Refuse the reason by which a batch counts as expired to all but the part that ends those. Raises ``InvalidRequestError``."""
    if actor != EXPIRY and reason is not None and reason.startswith(EXPIRED):
        raise InvalidRequestError(
            f"reason: {EXPIRED} is what the daemon says when a batch's time is over; begin with another word.",
            param="reason",
        )


def has_expired(job: Job) -> bool:
    """Whether its end was asked for because its window was over."""
    return (job.cancel_reason or "").startswith(EXPIRED)
