from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetuned_sft.params import SFTParams
from finetuned_training.settings import Resolved, every, intervals, resolve, total_steps


def make(**changes: Any) -> SFTParams:
    return SFTParams.model_validate({"model": "m", "dataset": "d.jsonl", **changes})


def resolved(*, cpu_count: int = 8, gpu: bool = False, bf16: bool = True, **changes: Any) -> Resolved:
    return resolve(make(**changes), cpu_count=cpu_count, gpu=gpu, bf16_supported=gpu and bf16)


def test_every_parameter_is_described() -> None:
    assert not [name for name, field in SFTParams.model_fields.items() if not field.description]


@pytest.mark.parametrize(
    ("method", "rate", "optim_on_gpu"),
    [
        ("lora", 2e-4, "adamw_torch_fused"),
        ("qlora", 2e-4, "paged_adamw_8bit"),
        ("full", 2e-5, "adamw_torch_fused"),
    ],
)
def test_defaults_follow_the_method(method: str, rate: float, optim_on_gpu: str) -> None:
    assert resolved(method=method).learning_rate == rate
    assert resolved(method=method, gpu=True).optim == optim_on_gpu
    assert resolved(method=method).optim == "adamw_torch_fused"


def test_adapters_default_to_rank_16_on_every_linear_layer() -> None:
    settings = resolved()
    assert (settings.lora_r, settings.lora_alpha, settings.lora_dropout) == (16, 32, 0.05)
    assert settings.lora_target_modules == "all-linear"
    assert resolved(lora_r=64).lora_alpha == 128


def test_what_the_user_says_is_kept() -> None:
    settings = resolved(
        learning_rate=3e-3, lora_alpha=7, lora_dropout=0.0, optim="adafactor", gpu=True, bf16=True
    )
    assert (settings.learning_rate, settings.lora_alpha, settings.lora_dropout) == (3e-3, 7, 0.0)
    assert settings.optim == "adafactor"


@pytest.mark.parametrize(
    ("changes", "gpu", "bf16", "expected"),
    [
        ({}, False, False, (False, False)),
        ({}, True, True, (True, False)),
        ({}, True, False, (False, True)),
        ({"fp16": True}, True, True, (False, True)),
        ({"bf16": False}, True, True, (False, False)),
        ({"bf16": False}, True, False, (False, False)),
        ({"bf16": True}, False, False, (True, False)),
    ],
)
def test_precision_follows_the_device(
    changes: dict[str, Any], gpu: bool, bf16: bool, expected: tuple[bool, bool]
) -> None:
    settings = resolve(make(**changes), cpu_count=2, gpu=gpu, bf16_supported=bf16)
    assert (settings.bf16, settings.fp16) == expected


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (4, 3), (64, 4)])
def test_batches_are_never_silently_made_by_the_training_process(cores: int, workers: int) -> None:
    settings = resolved(cpu_count=cores)
    assert settings.dataloader_num_workers == workers
    assert settings.dataloader_prefetch_factor == 4


def test_no_workers_are_an_explicit_choice() -> None:
    settings = resolved(dataloader_num_workers=0)
    assert (settings.dataloader_num_workers, settings.dataloader_prefetch_factor) == (0, None)


def test_the_best_checkpoint_is_saved_when_it_is_evaluated() -> None:
    settings = resolved(eval_split=0.1, early_stopping_patience=2)
    assert settings.load_best_model_at_end
    assert settings.save_steps == settings.eval_steps == 0.1
    assert resolved(eval_split=0.1, load_best_model_at_end=True, eval_steps=7).save_steps == 7


def test_two_checkpoints_are_kept_unless_the_callback_decides() -> None:
    assert resolved().save_total_limit == 2
    assert resolved(save_total_limit=5).save_total_limit == 5
    assert resolved(callbacks=[{"name": "checkpoint"}]).save_total_limit is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_step": 3}, "max_step"),
        ({"max_steps": -1}, "max_steps"),
        ({"max_steps": 0}, "max_steps"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": 2}, "learning_rate"),
        ({"eval_split": 1}, "eval_split"),
        ({"dataset_format": "chat"}, "dataset_format"),
        ({"optim": "adam"}, "optim"),
        ({"output_name": "../x"}, "output_name"),
        ({"eval_dataset": "e", "eval_split": 0.1}, "not both"),
        ({"early_stopping_patience": 2}, "need held-out rows"),
        ({"load_best_model_at_end": True}, "need held-out rows"),
        (
            {"early_stopping_patience": 2, "eval_split": 0.1, "load_best_model_at_end": False},
            "best checkpoint",
        ),
        ({"eval_steps": 5}, "nothing to evaluate"),
        ({"eval_split": 0.1, "early_stopping_patience": 1, "save_steps": 5}, "drop save_steps"),
        ({"bf16": True, "fp16": True}, "not both"),
        ({"method": "full", "lora_r": 8}, "lora_r does not apply"),
        ({"method": "full", "adapter": "a"}, "adapter does not apply"),
        ({"method": "full", "merge_adapter": True}, "merge_adapter does not apply"),
        ({"adapter": "a", "lora_alpha": 8}, "lora_alpha does not apply"),
        ({"lora_target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"lora_target_modules": []}, "lora_target_modules"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(**changes)


def test_parameters_survive_json() -> None:
    params = make(method="qlora", eval_split=0.1, callbacks=[{"name": "x", "params": {"a": 1}}])
    assert SFTParams.model_validate_json(params.model_dump_json()) == params


@pytest.mark.parametrize(
    ("rows", "changes", "steps"),
    [
        (32, {"num_train_epochs": 1}, 2),
        (33, {"num_train_epochs": 1}, 3),
        (1, {"num_train_epochs": 3}, 3),
        (32, {"num_train_epochs": 0.5}, 1),
        (32, {"max_steps": 100}, 100),
    ],
)
def test_steps_are_counted_as_transformers_does(rows: int, changes: dict[str, Any], steps: int) -> None:
    assert total_steps(make(**changes), rows) == steps  # 4 rows a pass, 4 passes a step


@given(st.floats(0.001, 5000), st.integers(1, 100_000))
def test_intervals_are_whole_steps_within_the_run_if_they_are_shares(steps: float, total: int) -> None:
    interval = every(steps, total)
    assert interval >= 1
    if steps < 1:
        assert interval <= total
        assert interval - 1 < steps * total + 1e-9
    else:
        assert interval == int(steps)


@pytest.mark.parametrize(
    ("changes", "evaluate", "save"),
    [
        ({}, 25_000, 500),
        ({"save_steps": 2000}, 25_000, 2000),
        ({"save_steps": 0.05}, 25_000, 5000),
        ({"eval_split": 0.1, "load_best_model_at_end": True}, 500, 500),
        ({"eval_split": 0.1, "early_stopping_patience": 3}, 500, 500),
        ({"eval_split": 0.1, "early_stopping_patience": 3, "eval_steps": 2000}, 2000, 2000),
        (
            {"eval_split": 0.1, "load_best_model_at_end": True, "eval_steps": 0.1, "save_steps": 0.1},
            10_000,
            10_000,
        ),
    ],
)
def test_a_crash_costs_no_more_than_500_steps_unless_the_user_says_so(
    changes: dict[str, Any], evaluate: int, save: int
) -> None:
    assert intervals(make(**changes), resolved(**changes), 100_000) == (evaluate, save)


def test_short_runs_have_ten_checkpoints_or_one_at_every_evaluation() -> None:
    assert intervals(make(), resolved(), 100) == (25, 10)
    best: dict[str, Any] = {"eval_split": 0.1, "load_best_model_at_end": True}
    assert intervals(make(**best), resolved(**best), 100) == (25, 25)
