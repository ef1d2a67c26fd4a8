"""What a distillation can be told, and what is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetuned_opd.params import OPDParams


def params(**changes: Any) -> OPDParams:
    base: dict[str, Any] = {"model": "m", "dataset": "d.jsonl"}
    if not {"teacher_endpoint", "self_distillation", "precomputed_scores", "teacher"} & changes.keys():
        base["teacher"] = "t"
    return OPDParams.model_validate(base | changes)


ENDPOINT = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"teacher": None}, "name one teacher"),
        ({"teacher": "t", "self_distillation": True}, "name one teacher"),
        ({"teacher_model": "x"}, "belongs to teacher_endpoint"),
        ({"teacher_endpoint": ENDPOINT, "teacher_in_4bit": True}, "belongs to teacher"),
        ({"self_distillation": True, "method": "full"}, "switches the adapter off"),
        ({"top_k": 8, "tail": False}, "moving its mass to others"),
        ({"top_k": 8, "tail": False, "beta": 0.5}, "moving its mass to others"),
        ({"tail": False}, "tail belongs to top_k"),
        ({"estimator": "k1"}, "nothing of the teacher in it"),
        ({"estimator": "k3", "top_k": 8}, "sampled token alone"),
        ({"estimator": "k2", "beta": 0.5}, "reverse KL"),
        ({"estimator": "k2", "top_p": 0.9}, "own distribution"),
        ({"estimator": "k2", "lmbda": 0.5}, "own samples"),
        ({"objective": "policy_gradient", "top_p": 0.9}, "importance weights"),
        ({"objective": "policy_gradient", "sampling_temperature": 0.5}, "importance weights"),
        ({"objective": "policy_gradient", "top_k": 8}, "sampled token alone"),
        ({"objective": "policy_gradient", "beta": 0.0}, "reverse KL"),
        ({"objective": "policy_gradient", "estimator": "k3"}, "advantage is k1"),
        ({"objective": "policy_gradient", "lmbda": 0.5}, "own samples"),
        ({"top_k": 8, "temperature": 2.0}, "whole vocabulary"),
        ({"teacher_endpoint": ENDPOINT, "temperature": 2.0}, "whole vocabulary"),
        ({"precomputed_scores": True, "lmbda": 0.5}, "lmbda=0"),
        ({"precomputed_scores": True, "eval_split": 0.1}, "name a teacher"),
        ({"max_length": 64, "max_completion_length": 64}, "leave room"),
        ({"teacher_endpoint": "ftp://somewhere"}, "pattern"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        params(**changes)


def test_an_endpoint_is_asked_for_its_likeliest_tokens_and_a_model_for_all() -> None:
    assert params().compares_all
    assert params(teacher_endpoint=ENDPOINT).compared_tokens == 20
    assert params(teacher_endpoint=ENDPOINT, objective="policy_gradient").compared_tokens is None
    assert not params(estimator="k3").compares_all


def test_precomputed_scores_are_of_the_rows_own_completions() -> None:
    found = params(precomputed_scores=True)
    assert found.lmbda == 0
    assert OPDParams.model_validate(found.model_dump()).lmbda == 0


def test_no_more_is_sampled_than_is_learned_from() -> None:
    assert params(prefix_tokens=32).new_tokens == 32
    assert params(prefix_tokens=999, max_completion_length=100).new_tokens == 100


def test_rates_are_those_of_the_recipes_for_whole_models_and_adapters() -> None:
    assert OPDParams.learning_rates == (2e-5, 1e-4)
