"""Whole numbers in JSON bodies."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from finetuned.json_numbers import Integer


@pytest.mark.parametrize(("value", "number"), [(3, 3), (3.0, 3), (-1, -1), (1e3, 1000)])
def test_a_number_without_a_fraction_is_whole(value: Any, number: int) -> None:
    assert TypeAdapter(Integer).validate_python(value) == number


@pytest.mark.parametrize("value", ["3", True, 3.5, None, [3], float("nan"), float("inf")])
def test_nothing_else_is(value: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Integer).validate_python(value)
