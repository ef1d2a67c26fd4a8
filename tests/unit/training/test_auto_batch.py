"""A batch that the trainer finds by itself, as the daemon reckons with it before anything was found."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetuned_sdk import Host
from finetuned_sft.params import SFTParams
from finetuned_training.alternatives import alternatives, smaller_batches
from finetuned_training.batch_search import candidates
from finetuned_training.params import TrainingParams
from finetuned_training.reduction import reduce_memory
from finetuned_training.settings import resolve, total_steps


def auto(**given: Any) -> SFTParams:
    return SFTParams(model="m", dataset="d.jsonl", per_device_train_batch_size="auto", **given)


def test_a_step_takes_the_rows_that_it_takes_without_auto() -> None:
    plain = SFTParams(model="m", dataset="d", gradient_accumulation_steps=6)
    assert auto(gradient_accumulation_steps=6).rows_a_step == plain.rows_a_step == 24
    assert plain.with_batch(12).gradient_accumulation_steps == 2


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 250])
def test_the_number_of_steps_does_not_depend_on_what_is_found(rows: int) -> None:
    params = auto(gradient_accumulation_steps=3, num_train_epochs=2.5)
    found = {total_steps(params.with_batch(batch), rows) for batch in candidates(params.rows_a_step, 12)}
    assert found == {total_steps(params, rows)}


def test_evaluation_takes_the_usual_batch_until_one_is_found() -> None:
    settings = resolve(auto(), cpu_count=2, gpu=False, bf16_supported=False)
    assert settings.per_device_eval_batch_size == 4


def test_after_memory_ran_out_half_of_what_was_found_is_asked_for_until_there_is_nothing_to_halve() -> None:
    params, asked = auto(gradient_accumulation_steps=2, per_device_eval_batch_size=2), []
    while (changes := reduce_memory(params)) is not None:
        params = SFTParams.model_validate({**params.model_dump(), **changes})
        asked.append((params.auto_batch_divisor, params.per_device_eval_batch_size))
    assert asked == [(2, 1), (4, 1), (8, 1)]
    assert params.finds_batch
    assert params.rows_a_step == 8


def test_no_smaller_batch_is_proposed_where_the_trainer_finds_its_own() -> None:
    assert list(smaller_batches(auto())) == []
    groups = list(alternatives(auto(), Host(cpu_count=2)))
    assert {"max_length": 512} in [change for group in groups for change in group]


def test_tuning_alone_needs_auto() -> None:
    assert auto(tune_only=True).tune_only
    with pytest.raises(ValidationError, match="tune_only finds the batch of auto"):
        SFTParams(model="m", dataset="d", tune_only=True)
    with pytest.raises(ValidationError):
        SFTParams.model_validate({"model": "m", "dataset": "d", "per_device_train_batch_size": "large"})


def test_a_kind_whose_trainer_finds_no_batch_does_not_take_auto() -> None:
    with pytest.raises(ValidationError, match="this kind finds no batch by itself"):
        TrainingParams(model="m", dataset="d", per_device_train_batch_size="auto")
    assert TrainingParams(model="m", dataset="d").rows_a_pass == 4
