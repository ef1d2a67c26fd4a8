"""What may be kept as a template."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field

from finetuned import templates
from finetuned.domain.errors import InvalidRequestError
from finetuned.job_request import JobRequest
from finetuned_sdk import JobKind, Registry


class Params(BaseModel):
    """Parameters one of which has no default."""

    model: str
    steps: int = Field(default=1, ge=1)


def registry() -> Registry:
    made = Registry()
    made.job_kind(JobKind(name="sft", summary="Trains.", params=Params, entry="x:run"))
    return made


def test_what_is_still_missing_may_be_said_by_the_job() -> None:
    request = JobRequest(kind="sft", params={"steps": 3})
    assert templates.check(request, registry()) == {"kind": "sft", "params": {"steps": 3}}


def test_what_is_said_must_fit_also_where_something_is_missing() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        templates.check(JobRequest(kind="sft", params={"steps": 0}), registry())
    assert refused.value.param == "request.params.steps"
    assert "more problem" not in refused.value.message  # the missing model is none
