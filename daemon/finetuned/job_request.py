"""What a user asks for when submitting a job: the body of ``POST /v1/jobs``."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from finetuned.json_numbers import Integer
from finetuned.refusals import invalid

Json = Any

PRIORITY_LIMIT = 1_000
METADATA_LIMIT = 16 << 10  # bytes
DEFAULT_MAX_ATTEMPTS = 3


Seconds = Annotated[float, Field(gt=0, le=10_000_000, allow_inf_nan=False)]
Bytes = Annotated[Integer, Field(ge=1 << 20, le=1 << 60)]


class Timeouts(BaseModel):
    """How long which silence of an attempt is borne, in seconds."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    heartbeat_s: Seconds | None = Field(
        default=None, description="without a sign of life of its process, before an alert tells it (30)"
    )
    start_s: Seconds | None = Field(
        default=None, description="without a sign of work before its first step (1800)"
    )
    stall_s: Seconds | None = Field(default=None, description="between two steps (600)")
    evaluation_s: Seconds | None = Field(default=None, description="in an evaluation (3600)")
    saving_s: Seconds | None = Field(default=None, description="while it saves (1800)")
    pause_s: Seconds | None = Field(
        default=None, description="for the checkpoint of a pause, before it is stopped without one (30)"
    )
    max_duration_s: Seconds | None = Field(
        default=None, description="that all its attempts together may run; then it fails (no limit)"
    )


class Limits(BaseModel):
    """What an attempt may take at most."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    cpu: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = Field(
        default=None, description="cores"
    )
    memory: Bytes | None = Field(default=None, description="bytes of the host's memory")
    gpu_memory: Bytes | None = Field(default=None, description="bytes on each of its GPUs")
    disk: Bytes | None = Field(default=None, description="bytes that its files may take")


class JobRequest(BaseModel):
    """The body of ``POST /v1/jobs``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    kind: str = Field(
        default="",
        description="the kind of work, as `finetune kinds` lists them; only with a template it may be left out",
    )
    template: str | None = Field(
        default=None,
        max_length=120,
        description="a template, by name or as NAME@VERSION, that says what this request does not",
    )
    params: dict[str, Json] = Field(default_factory=dict, description="the kind's own parameters")
    priority: Integer = Field(
        default=0,
        ge=-PRIORITY_LIMIT,
        le=PRIORITY_LIMIT,
        description="higher goes first; one point is worth ten minutes of waiting",
    )
    name: str | None = Field(default=None, max_length=200, description="a name for people")
    metadata: dict[str, Json] = Field(
        default_factory=dict, description="your own keys, at most 16 KiB; the daemon only keeps them"
    )
    max_attempts: Integer | None = Field(
        default=None,
        ge=1,
        le=100,
        description="runs that may crash before the job is given up; null takes the daemon's setting",
    )
    timeouts: Timeouts = Field(
        default_factory=Timeouts,
        description="how long which silence is borne, in seconds; what is left out is as the kind has it",
    )
    limits: Limits = Field(default_factory=Limits, description="what each attempt may take at most")
    preemptible: bool = Field(
        default=False,
        description="whether a job of higher priority may have its devices: it saves a checkpoint, waits and goes on",
    )
    reduces_batch: bool = Field(
        default=True,
        description="whether an attempt that runs out of memory is followed by one with half the per-device batch and"
        " twice the accumulation, which trains the same",
    )
    ignores_estimate: bool = Field(
        default=False,
        description="whether it is accepted and started though it does not fit as far as can be foretold",
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        max_length=20,
        description='secrets that the job may use, by reference: `{"HF_TOKEN": "secret:hf"}`; names in capitals'
        " become environment variables of its worker",
    )

    @field_validator("metadata")
    @classmethod
    def _small(cls, value: dict[str, Json]) -> dict[str, Json]:
        # It is written again with every change of the job.
        if len(orjson.dumps(value)) > METADATA_LIMIT:
            raise ValueError(f"must be at most {METADATA_LIMIT} bytes as JSON; keep more in a file of yours")
        return value


def parse_request(body: object) -> JobRequest:
    """The request behind a JSON body. Raises ``InvalidRequestError`` that names the field and the remedy."""
    try:
        return JobRequest.model_validate(body)
    except ValidationError as error:
        raise invalid(error, JobRequest.model_fields, prefix="") from None
