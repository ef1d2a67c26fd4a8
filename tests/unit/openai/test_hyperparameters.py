"""OpenAI's hyperparameters are the trainers' parameters, there and back."""

from __future__ import annotations

from typing import Any

import pytest

from finetuned.openai import hyperparameters
from finetuned.openai.hyperparameters import METHODS, MOST_ROWS_A_PASS, ROWS_A_STEP, Method
from finetuned_dpo.params import DPOParams
from finetuned_opd.params import OPDParams
from finetuned_sft.params import SFTParams
from finetuned_training.params import TrainingParams

TRAINERS: dict[str, type[TrainingParams]] = {
    "supervised": SFTParams,
    "dpo": DPOParams,
    "distillation": OPDParams,
}
AUTO: dict[str, Any] = {"n_epochs": None, "batch_size": None, "learning_rate_multiplier": None}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_auto_means_what_the_trainers_take_when_nothing_is_said(method: Method) -> None:
    trainer = TRAINERS[method.name]
    default = {name: field.default for name, field in trainer.model_fields.items()}
    assert hyperparameters.params(method, **AUTO) == {
        "num_train_epochs": default["num_train_epochs"],
        "per_device_train_batch_size": default["per_device_train_batch_size"],
        "gradient_accumulation_steps": default["gradient_accumulation_steps"],
        "learning_rate": trainer.learning_rates[1],
        **({} if method.beta is None else {"beta": default["beta"]}),
    }
    assert method.learning_rates == trainer.learning_rates
    assert default["seed"] == 42


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_job_without_any_shows_what_auto_means(method: Method) -> None:
    shown = {"n_epochs": method.epochs, "batch_size": ROWS_A_STEP, "learning_rate_multiplier": 1.0}
    if method.beta is not None:
        shown["beta"] = method.beta
    assert hyperparameters.shown(method, {}) == shown
    assert hyperparameters.shown(method, hyperparameters.params(method, **AUTO)) == shown
    assert hyperparameters.shown(method, {"per_device_train_batch_size": "auto"}) == shown


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 8, 12, 16, 30, 256])
def test_a_batch_is_split_into_passes_that_are_no_larger_than_usual(batch_size: int) -> None:
    method = METHODS["supervised"]
    params = hyperparameters.params(method, **{**AUTO, "batch_size": batch_size})
    rows, passes = params["per_device_train_batch_size"], params["gradient_accumulation_steps"]
    assert rows * passes == batch_size
    assert 1 <= rows <= MOST_ROWS_A_PASS
    assert hyperparameters.shown(method, params)["batch_size"] == batch_size


@pytest.mark.parametrize("tuned", ["lora", "full"])
@pytest.mark.parametrize("multiplier", [0.1, 0.3, 1.0, 1.8, 3.0, 7.7])
def test_the_multiplier_multiplies_the_learning_rate_of_what_is_tuned(multiplier: float, tuned: str) -> None:
    method = METHODS["dpo"]
    params = hyperparameters.params(method, **{**AUTO, "learning_rate_multiplier": multiplier}, tuned=tuned)
    assert params["learning_rate"] == pytest.approx(multiplier * (1e-6 if tuned == "full" else 1e-5))
    assert (
        hyperparameters.shown(method, {**params, "method": tuned})["learning_rate_multiplier"] == multiplier
    )


def test_numbers_that_a_log_holds_as_text_are_shown_as_numbers() -> None:
    given = {
        "learning_rate": "2e-4",
        "num_train_epochs": "2",
        "per_device_train_batch_size": "8",
        "gradient_accumulation_steps": None,
        "beta": "much",
    }
    assert hyperparameters.shown(METHODS["dpo"], {**given, "learning_rate": "1e-5"}) == {
        "n_epochs": 2,
        "batch_size": 32,
        "learning_rate_multiplier": 1.0,
        "beta": 0.1,
    }
    assert hyperparameters.shown(METHODS["supervised"], given)["learning_rate_multiplier"] == 1.0
