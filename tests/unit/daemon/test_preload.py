"""What a job's worker may be forked with, as its kind says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from finetuned.attempt_orders import preload
from finetuned_sdk import JobKind


class Params(BaseModel):
    """Of a kind of these tests."""

    model: str


def kind(ask: Callable[[Any], tuple[str, ...]] | None) -> JobKind:
    return JobKind(name="k", summary="A kind.", params=Params, entry="m:run", preload=ask)


def test_a_kind_that_says_nothing_starts_as_a_program() -> None:
    assert preload(kind(None), {"model": "a"}, {}) == ()


def test_a_kind_is_asked_with_the_directories_of_registered_models() -> None:
    asked = []

    def ask(params: Params) -> tuple[str, ...]:
        asked.append(params.model)
        return ("m",)

    assert preload(kind(ask), {"model": "a"}, {"model": "/models/a"}) == ("m",)
    assert asked == ["/models/a"]


@pytest.mark.parametrize("params", [{"model": "a"}, {"model": 3}])
def test_a_kind_that_fails_to_tell_starts_as_a_program(
    params: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_params: Params) -> tuple[str, ...]:
        raise RuntimeError("a mistake")

    assert preload(kind(fail), params, {}) == ()
    assert "k cannot tell what to import beforehand" in caplog.text
