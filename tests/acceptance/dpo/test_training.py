"""The DPO trainer, end to end in this process, on a tiny random Llama."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from finetuned_dpo.params import DPOParams
from finetuned_sdk.testing import RecordingContext

from .conftest import MakeParams, Run, pair, write

if TYPE_CHECKING:
    from finetuned_dpo.preference_trainer import PreferenceTrainer

HELD_OUT_FIGURES = ("accuracies", "margins", "logps_accuracies", "forward_kl_k1")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SERIES = (
    "loss",
    "grad_norm",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "logps/accuracies",
    "forward_kl_k1",
)


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


def sums_of_logps(params: DPOParams, adapter: Path | None) -> Any:
    """log π(y|x) of each pair's chosen and rejected answer, float [pairs, 2]: by the model's own forward, one by one."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from finetuned_dpo.tokenization import TokenizedPair, tokenized_pairs
    from finetuned_training.chat import load_tokenizer

    model = AutoModelForCausalLM.from_pretrained(params.model, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    sums = []
    for row in tokenized_pairs(params.dataset, "train", "preference", load_tokenizer(params.model, params)):
        assert isinstance(row, TokenizedPair)
        for answer in (row.chosen_ids, row.rejected_ids):
            ids = torch.tensor([row.prompt_ids + answer])
            with torch.no_grad():
                logps = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            sums.append(logps[-len(answer) :].sum())
    return torch.stack(sums).view(-1, 2)


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
    assert 0 <= result["eval_logps_accuracies_before"] <= result["eval_logps_accuracies_after"] <= 1
    card = (ctx.artifact_dir / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "direct preference optimisation" in card
    assert "tags: [finetuned, dpo, trl]" in card
    told = {f"eval_{name}_{when}" for name in HELD_OUT_FIGURES for when in ("before", "after")}
    assert all(f"| {name} |" in card for name in told), card
    assert told <= result.keys()
    first, *_, last = ctx.of_type("evaluation")
    assert first["step"] == 0
    assert (
        first["metrics"]["eval_rewards/margins"]
        == result["eval_margins_before"]
        == pytest.approx(0, abs=1e-6)
    )
    assert last["metrics"]["eval_rewards/margins"] == result["eval_margins_after"]


@pytest.mark.parametrize(("goes_back", "after"), [(True, 0.5), (False, 0.25)])
def test_what_is_told_of_held_out_pairs_is_of_the_model_that_is_published(
    *, goes_back: bool, after: float
) -> None:
    from finetuned_dpo.trainer import HELD_OUT
    from finetuned_training.publishing import held_out

    margins = {0: 0.0, 2: 0.5, 4: 0.25}
    state = SimpleNamespace(
        log_history=[
            {"step": step, "eval_loss": 0.6, "eval_rewards/margins": margin}
            for step, margin in margins.items()
        ],
        best_global_step=2,
        best_model_checkpoint="/somewhere",
    )
    trainer = SimpleNamespace(state=state, args=SimpleNamespace(load_best_model_at_end=goes_back))
    told = held_out(cast("PreferenceTrainer", trainer), HELD_OUT)
    assert (told["eval_margins_before"], told["eval_margins_after"]) == (0.0, after)


def test_the_kl_estimate_is_the_mean_log_ratio_and_the_accuracy_of_logps_counts_pairs(
    run: Run, make_params: MakeParams
) -> None:
    """One batch of all pairs, so that the figures of its second step are those of the model after the first."""
    params = make_params(
        per_device_train_batch_size=32,
        max_steps=2,
        save_steps=1,
        save_total_limit=9,
        beta=0.3,
        warmup_steps=0,
    )
    ctx = run(params)
    start, moved = (sums_of_logps(params, adapter) for adapter in (None, checkpoint_at(ctx, 1)))
    report = reported(ctx)[2]
    assert report["forward_kl_k1"] == pytest.approx((start - moved).mean().item(), abs=1e-4)
    assert report["rewards/chosen"] == pytest.approx(0.3 * (moved - start)[:, 0].mean().item(), abs=1e-4)
    assert report["logps/accuracies"] == (moved[:, 0] > moved[:, 1]).float().mean().item()


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


@pytest.mark.parametrize("cached", [True, False])
def test_the_reference_of_a_run_from_an_adapter_is_that_adapter_not_the_base(
    run: Run, make_params: MakeParams, tmp_path: Path, *, cached: bool
) -> None:
    import numpy as np

    first = run(make_params())
    adapter = first.artifact_dir / "adapter"
    params = make_params(
        adapter=str(adapter), reference_cache=cached, save_steps=3, save_total_limit=9, learning_rate=1e-3
    )
    whole = run(params)
    reports = reported(whole)
    assert reports[1]["loss"] == pytest.approx(0.6931, abs=1e-4)  # the base would be far from it
    assert reports[1]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert reports[8]["loss"] < reports[1]["loss"]
    if cached:
        start, base = sums_of_logps(params, adapter).numpy(), sums_of_logps(params, None).numpy()
        newest = max(
            (tmp_path / "cache" / "reference-scores").iterdir(), key=lambda path: path.stat().st_mtime_ns
        )
        np.testing.assert_allclose(np.load(newest), start, atol=1e-3)
        assert np.abs(start - base).max() > 0.1
    resumed = run(params, resume_from=checkpoint_at(whole, 3))
    assert reported(resumed) == {step: reports[step] for step in range(4, 9)}
    assert_equal_weights(resumed, whole)
    # TRL's copy of the adapter is no part of what comes out.
    assert not list((tmp_path / "state").rglob("ref"))


def test_one_pass_of_eight_pairs_trains_as_eight_passes_of_one(run: Run, make_params: MakeParams) -> None:
    import torch

    eight = run(make_params(per_device_train_batch_size=8, max_steps=3))
    ones = run(make_params(per_device_train_batch_size=1, gradient_accumulation_steps=8, max_steps=3))
    losses = [[report["loss"] for report in reported(ctx).values()] for ctx in (eight, ones)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    first, second = weights(eight), weights(ones)
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
