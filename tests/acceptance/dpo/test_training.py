"""The DPO trainer, end to end in this process, on a tiny random Llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuned_dpo.params import DPOParams
from finetuned_sdk.testing import RecordingContext

from .conftest import MakeParams, Run, pair, write

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SERIES = ("loss", "grad_norm", "rewards/margins", "rewards/accuracies", "logps/chosen", "kl")


def reported(ctx: RecordingContext) -> dict[int, dict[str, Any]]:
    return {
        fact["current_step"]: {name: fact[name] for name in SERIES}
        for fact in ctx.of_type("progress")
        if fact["loss"] is not None
    }


def checkpoint_at(ctx: RecordingContext, step: int) -> Path:
    return next(Path(fact["path"]) for fact in ctx.of_type("checkpoint") if fact["step"] == step)


def weights(ctx: RecordingContext) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = ctx.artifact_dir.glob("*/*model.safetensors")
    loaded: dict[str, Any] = load_file(file)
    return loaded


def assert_equal_weights(one: RecordingContext, other: RecordingContext) -> None:
    import torch

    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def bare_trl(params: DPOParams, directory: Path) -> list[float]:
    """The loss of each step as TRL's own trainer has it, with the same settings and nothing of ours."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    rows = [json.loads(line) for line in Path(params.dataset).read_text(encoding="utf-8").splitlines()]
    full = params.method == "full"
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(params.model, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(directory),
            max_steps=params.max_steps,
            per_device_train_batch_size=params.per_device_train_batch_size,
            gradient_accumulation_steps=params.gradient_accumulation_steps,
            learning_rate=params.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0,
            max_length=params.max_length,
            loss_type=list(params.loss_type),
            beta=params.beta,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(params.model),
        peft_config=None
        if full
        else LoraConfig(
            task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
        ),
    )
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def test_a_run_learns_to_prefer_and_says_by_how_much(run: Run, make_params: MakeParams) -> None:
    ctx = run(make_params(max_steps=16, eval_split=0.25))
    reports = list(reported(ctx).values())
    assert len(reports) == 16
    assert reports[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # the model is the reference: log 2
    assert reports[-1]["loss"] < 0.6
    assert reports[-1]["rewards/margins"] > reports[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)
    result = ctx.results
    assert result["eval_accuracies_after"] > result["eval_accuracies_before"]
    assert result["eval_margins_after"] > 0.1
    card = (ctx.artifact_dir / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "direct preference optimisation" in card
    assert "tags: [finetuned, dpo, trl]" in card


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "full", "learning_rate": 1e-3},
        {"loss_type": ["ipo"], "beta": 0.3},
        {"loss_type": ["sigmoid_norm", "sft"]},
        {"reference_cache": False},
        {"reference_cache": False, "method": "full", "learning_rate": 1e-3},
    ],
    ids=str,
)
def test_the_losses_are_those_of_bare_trl(
    run: Run, make_params: MakeParams, changes: dict[str, Any], tmp_path: Path
) -> None:
    params = make_params(**changes)
    ours = [report["loss"] for report in reported(run(params)).values()]
    assert ours == pytest.approx(bare_trl(params, tmp_path / "bare"), abs=2e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(
    run: Run, make_params: MakeParams, method: str
) -> None:
    params = make_params(method=method, save_steps=3, save_total_limit=9, learning_rate=1e-3)
    whole = run(params)
    resumed = run(params, resume_from=checkpoint_at(whole, 3))
    straight = reported(whole)
    assert reported(resumed) == {step: straight[step] for step in range(4, 9)}
    assert_equal_weights(resumed, whole)


def test_the_reference_is_asked_once_for_all_runs_with_these_pairs_and_never_of_the_trained_model(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from finetuned_dpo.preference_trainer import PreferenceTrainer

    asked: list[int] = []
    ask = PreferenceTrainer._ask_reference

    def counted(self: PreferenceTrainer, dataset: Any, batch_size: int) -> Any:
        asked.append(len(dataset))
        return ask(self, dataset, batch_size)

    monkeypatch.setattr(PreferenceTrainer, "_ask_reference", counted)
    params = make_params(method="full", save_steps=4, learning_rate=1e-3)
    first = run(params)
    assert asked == [32]
    again = run(params)
    assert asked == [32]
    assert reported(again) == reported(first)
    (tmp_path / "cache" / "reference-scores").rename(tmp_path / "lost")
    resumed = run(
        params, resume_from=checkpoint_at(first, 4)
    )  # asked anew, before the checkpoint's weights are loaded
    assert asked == [32, 32]
    assert_equal_weights(resumed, first)
    fewer = write(tmp_path / "fewer.jsonl", map(pair, range(16)))
    run(make_params(method="full", dataset=fewer, learning_rate=1e-3))
    assert asked == [32, 32, 16]


def test_a_stop_while_the_reference_is_asked_ends_the_attempt_without_a_result(
    make_params: MakeParams, make_context: Any
) -> None:
    from finetuned_dpo.trainer import train

    params = make_params()
    ctx = make_context(params)
    ctx.request_stop("paused", checkpoint=True)
    train(ctx, params)
    assert not ctx.of_type("artifact")
    assert not ctx.of_type("progress")


def test_going_on_from_an_adapter_takes_it_as_the_reference(run: Run, make_params: MakeParams) -> None:
    first = run(make_params())
    params = make_params(adapter=str(first.artifact_dir / "adapter"))
    reports = list(reported(run(params)).values())
    assert reports[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # nothing is preferred beyond the start yet
    assert reports[-1]["loss"] < reports[0]["loss"]


def test_one_pass_of_eight_pairs_trains_as_eight_passes_of_one(run: Run, make_params: MakeParams) -> None:
    import torch

    eight = run(make_params(per_device_train_batch_size=8, max_steps=3))
    ones = run(make_params(per_device_train_batch_size=1, gradient_accumulation_steps=8, max_steps=3))
    losses = [[report["loss"] for report in reported(ctx).values()] for ctx in (eight, ones)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    first, second = weights(eight), weights(ones)
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
