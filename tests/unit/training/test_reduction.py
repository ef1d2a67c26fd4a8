"""The same training in less memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned_sdk import Registry
from finetuned_sft.params import SFTParams
from finetuned_sft.plugin import finetuned_register
from finetuned_training.reduction import reduce_memory
from finetuned_training.settings import total_steps


def params(**changes: Any) -> SFTParams:
    return SFTParams.model_validate({"model": "m", "dataset": "d.jsonl", **changes})


def batches(batch: int, accumulation: int, **more: Any) -> dict[str, Any]:
    return {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, **more}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (batches(4, 1), batches(2, 2)),
        (batches(2, 8), batches(1, 16)),
        (batches(9, 2), batches(3, 6)),  # an odd one is divided by what divides it
        (batches(7, 1), batches(1, 7)),
        (batches(1, 4), None),
        (batches(1, 4, per_device_eval_batch_size=8), {"per_device_eval_batch_size": 4}),
        (batches(4, 1, per_device_eval_batch_size=1), batches(2, 2)),
    ],
)
def test_a_batch_is_divided_and_the_accumulation_makes_up_for_it(
    before: dict[str, Any], after: dict[str, Any] | None
) -> None:
    assert reduce_memory(params(**before)) == after


@given(
    st.integers(1, 4096),
    st.integers(1, 16),
    st.integers(1, 10_000),
    st.one_of(st.none(), st.integers(1, 4096)),
)
def test_the_effective_batch_and_the_number_of_steps_stay_the_same_until_nothing_is_left(
    batch: int, accumulation: int, rows: int, evaluation: int | None
) -> None:
    now = params(**batches(batch, accumulation, per_device_eval_batch_size=evaluation))
    steps = total_steps(now, rows)
    while (changes := reduce_memory(now)) is not None:
        smaller = now.model_copy(update=dict(changes))
        assert smaller.rows_a_step == batch * accumulation
        assert smaller.rows_a_pass < now.rows_a_pass or evaluation
        assert total_steps(smaller, rows) == steps
        now = smaller
    assert now.per_device_train_batch_size == 1
    assert now.per_device_eval_batch_size in {None, 1}


def test_the_kind_declares_it_and_its_changes_are_valid_parameters() -> None:
    registry = Registry()
    finetuned_register(registry)
    reduce = registry.job_kinds["sft"].reduce_memory
    assert reduce is not None
    changes = reduce(params())
    assert changes is not None
    assert params(**changes).per_device_train_batch_size == 2
