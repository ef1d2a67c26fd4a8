"""The distillation trainer, end to end in this process, on a tiny random student and its teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuned_opd.params import OPDParams
from finetuned_sdk import JobError
from finetuned_sdk.testing import RecordingContext

from .conftest import MakeParams, Run

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SERIES = (
    "loss",
    "grad_norm",
    "kl_reverse",
    "token_agreement",
    "entropy",
    "completions/mean_length",
    "num_tokens",
)


def reported(ctx: RecordingContext, *names: str) -> dict[int, dict[str, Any]]:
    """What was said of each step."""
    return {
        fact["current_step"]: {name: fact.get(name) for name in names or SERIES}
        for fact in ctx.of_type("progress")
        if fact["loss"] is not None
    }


def checkpoint_at(ctx: RecordingContext, step: int) -> Path:
    return next(Path(fact["path"]) for fact in ctx.of_type("checkpoint") if fact["step"] == step)


def assert_equal_weights(one: RecordingContext, other: RecordingContext) -> None:
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(next(ctx.artifact_dir.glob("*/*model.safetensors"))) for ctx in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_student_comes_nearer_to_its_teacher(run: Run, make_params: MakeParams) -> None:
    ctx = run(make_params(method="full", max_steps=30, eval_split=0.25, learning_rate=3e-2))
    result = ctx.results
    assert result["eval_kl_reverse_after"] < 0.7 * result["eval_kl_reverse_before"]
    assert result["model_path"] is not None
    losses = [step["loss"] for step in reported(ctx).values()]
    assert losses[-1] < losses[0]


def test_what_is_told_of_held_out_prompts_is_of_the_model_that_is_published(
    run: Run, make_params: MakeParams
) -> None:
    """A rate at which the student is soon worse than it was: the checkpoint that it goes back to is not the last."""
    ctx = run(
        make_params(
            method="full",
            max_steps=6,
            eval_steps=1,
            eval_split=0.25,
            load_best_model_at_end=True,
            learning_rate=1.0,
        )
    )
    figures = [each["metrics"] for each in ctx.of_type("evaluation")]
    best = min(figures[1:], key=lambda each: each["eval_loss"])
    assert ctx.results["eval_loss"] == best["eval_loss"]
    assert ctx.results["eval_kl_reverse_after"] == best["eval_kl_reverse"] != figures[-1]["eval_kl_reverse"]


def test_every_step_tells_what_it_did(run: Run, make_params: MakeParams) -> None:
    ctx = run(make_params(max_steps=2))
    names = (
        *SERIES,
        "completions/clipped_ratio",
        "top_overlap",
        "teacher_mass",
        "sampler_gap",
        "seconds_generate",
        "seconds_teacher",
        "seconds_loss",
        "seconds_update",
    )
    for step in reported(ctx, *names).values():
        assert all(isinstance(value, float) for value in step.values()), step
        assert step["loss"] == pytest.approx(step["kl_reverse"], rel=1e-5)
        assert step["sampler_gap"] < 1e-4


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(
    run: Run, make_params: MakeParams, method: str
) -> None:
    params = make_params(method=method, save_steps=2, save_total_limit=9, logging_steps=1, num_train_epochs=1)
    whole = run(params)
    resumed = run(params, resume_from=checkpoint_at(whole, 2), attempt=2)
    assert reported(resumed) == {step: told for step, told in reported(whole).items() if step > 2}
    assert_equal_weights(whole, resumed)


def test_passes_of_a_step_are_summed_whatever_their_number(run: Run, make_params: MakeParams) -> None:
    one = run(make_params(per_device_train_batch_size=8, gradient_accumulation_steps=1))
    many = run(make_params(per_device_train_batch_size=1, gradient_accumulation_steps=8))
    for together, apart in zip(reported(one, "loss").values(), reported(many, "loss").values(), strict=True):
        assert together["loss"] == pytest.approx(apart["loss"], abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"beta": 0.0},
        {"beta": 0.5},
        {"top_k": 8},
        {"top_k": 8, "beta": 0.0, "tail": False},
        {"temperature": 2.0},
        {"estimator": "k2"},
        {"estimator": "k3"},
        {"objective": "policy_gradient"},
        {"lmbda": 0.5},
        {"lmbda": 0.0},
        {"kl_weight": 0.5},
        {"kl_weight": 0.0, "lmbda": 0.0},
        {"prefix_tokens": 4},
        {"sampling_temperature": 0.7, "top_p": 0.9},
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_each_way_to_learn_runs_and_is_told_by_a_finite_loss(
    run: Run, make_params: MakeParams, changes: dict[str, Any]
) -> None:
    ctx = run(make_params(max_steps=2, **changes))
    assert len(reported(ctx)) == 2
    assert ctx.results["train_loss"] == ctx.results["train_loss"]


def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    run: Run, make_params: MakeParams, tiny_model: str
) -> None:
    ctx = run(make_params(method="full", teacher=tiny_model, max_steps=1))
    (step,) = reported(ctx).values()
    assert step["loss"] == pytest.approx(0, abs=1e-6)
    assert step["token_agreement"] == 1.0


def test_held_out_figures_are_the_same_however_often_the_training_is_logged(
    run: Run, make_params: MakeParams
) -> None:
    often, seldom = (
        run(make_params(max_steps=3, eval_split=0.25, eval_steps=2, save_steps=2, logging_steps=steps))
        for steps in (1, 3)
    )
    names = ("eval_kl_reverse", "eval_token_agreement", "eval_sampler_gap", "eval_completions/mean_length")
    first, second = (
        [[fact["metrics"][name] for name in names] for fact in ctx.of_type("evaluation")]
        for ctx in (often, seldom)
    )
    assert len(first) > 2
    assert first == second
    each = [told["kl_reverse"] for told in reported(often).values()]
    assert reported(seldom)[3]["kl_reverse"] == pytest.approx(sum(each) / len(each))


@pytest.mark.parametrize("padded", ["teacher", "model"])
@pytest.mark.parametrize(
    "changes", [{"top_k": 8}, {"top_k": 8, "beta": 0.5}, {"kl_weight": 0.5, "top_k": 8}], ids=str
)
def test_models_of_one_tokenizer_and_a_different_padding_are_compared_by_the_tokens_that_both_have(
    run: Run, make_params: MakeParams, tmp_path: Path, padded: str, changes: dict[str, Any]
) -> None:
    params = make_params(max_steps=2, lmbda=0.0, **changes)
    wider = params.model_copy(update={padded: resized(getattr(params, padded), tmp_path / "wider")})
    assert [told["loss"] for told in reported(run(wider)).values()] == pytest.approx(
        [told["loss"] for told in reported(run(params)).values()], rel=0.5
    )
    with pytest.raises(JobError, match="so their whole distributions cannot be compared") as caught:
        run(wider.model_copy(update={"top_k": None}))
    assert caught.value.code == "vocabulary_mismatch"


def test_a_student_that_says_what_its_teacher_has_no_token_for_is_told_so(
    run: Run, make_params: MakeParams, tmp_path: Path
) -> None:
    wider = resized(make_params().model, tmp_path / "wider")
    with pytest.raises(JobError, match="resize the student's embeddings to 339") as caught:
        run(make_params(model=wider, top_k=8))
    assert caught.value.code == "vocabulary_mismatch"


def resized(model: str, directory: Path, more: int = 64) -> str:
    """The model with some logits more, which its tokenizer has no tokens for."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    before = found.get_input_embeddings().weight.shape[0]
    found.resize_token_embeddings(before + more, mean_resizing=False)
    found.save_pretrained(directory)
    AutoTokenizer.from_pretrained(model).save_pretrained(directory)
    return str(directory)


def test_an_adapter_is_taught_by_the_model_below_it(run: Run, make_params: MakeParams) -> None:
    first = run(make_params(max_steps=8))
    adapter = next(first.artifact_dir.glob("*/adapter_model.safetensors")).parent
    ctx = run(make_params(self_distillation=True, adapter=str(adapter), max_steps=12, lora_dropout=None))
    losses = [step["loss"] for step in reported(ctx).values()]
    assert losses[0] > 1e-3
    assert losses[-1] < losses[0]


def bare_trl(params: OPDParams, directory: Path, completions: list[Any]) -> list[float]:
    """The loss of each step as TRL's own trainer has it, given the completions that ours sampled."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DistillationConfig, DistillationTrainer

    class Given(DistillationTrainer):  # type: ignore[misc]
        def _generate_single_turn(self, prompt_ids: Any, *_args: Any, **_kwargs: Any) -> list[list[int]]:
            given = completions.pop(0)
            return [given[tuple(ids)] for ids in prompt_ids]

        def _send_telemetry(self) -> None: ...

    assert params.teacher is not None
    rows = [json.loads(line) for line in Path(params.dataset).read_text(encoding="utf-8").splitlines()]
    trainer = Given(
        model=AutoModelForCausalLM.from_pretrained(params.model, dtype=torch.float32),
        teacher_model=AutoModelForCausalLM.from_pretrained(params.teacher, dtype=torch.float32),
        args=DistillationConfig(
            output_dir=str(directory),
            max_steps=params.max_steps,
            per_device_train_batch_size=params.per_device_train_batch_size,
            gradient_accumulation_steps=params.gradient_accumulation_steps,
            learning_rate=params.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0,
            weight_decay=0.0,
            max_completion_length=params.max_completion_length,
            beta=params.beta,
            temperature=params.temperature,
            shuffle_dataset=False,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": each["prompt"]} for each in rows]),
        processing_class=AutoTokenizer.from_pretrained(params.model, padding_side="left"),
    )
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


@pytest.mark.parametrize("changes", [{}, {"beta": 0.5}, {"beta": 0.0}, {"temperature": 2.0}], ids=str)
def test_losses_are_those_of_trl(
    run: Run,
    make_params: MakeParams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    from finetuned_opd.rollouts import draft

    params = make_params(
        method="full",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=5,
        optim="adamw_torch",
        **changes,
    )
    windows: list[dict[tuple[int, ...], list[int]]] = []
    order: list[tuple[int, ...]] = []

    def noted(questions: Any, *args: Any, **kwargs: Any) -> Any:
        drafts = draft(questions, *args, **kwargs)
        windows.append({each.row.prompt: list(each.row.completion) for each in drafts})
        order.extend(each.row.prompt for each in drafts)
        return drafts

    monkeypatch.setattr("finetuned_opd.distillation_trainer.draft", noted)
    ours = [step["loss"] for step in reported(run(params)).values()]

    rows = in_order(params, order)
    theirs = bare_trl(params.model_copy(update={"dataset": rows}), tmp_path / "trl", windows)
    assert ours == pytest.approx(theirs, abs=1e-4)


def in_order(params: OPDParams, order: list[tuple[int, ...]]) -> str:
    """The rows in the order in which ours were drawn, so that TRL's come in it unshuffled."""
    from finetuned_opd import prompts
    from finetuned_training import chat

    tokenizer = chat.load_tokenizer(params.model, params)
    path = Path(params.dataset)
    lines = path.read_text(encoding="utf-8").splitlines()
    questions = prompts.tokenized_questions(str(path), "train", "prompt_completion", tokenizer, as_chat=False)
    by_prompt = {
        tuple(each.prompt_ids): line
        for each, line in zip(questions, lines, strict=True)
        if isinstance(each, prompts.TokenizedQuestion)
    }
    ordered = path.with_name("ordered.jsonl")
    ordered.write_text("".join(by_prompt[prompt] + "\n" for prompt in order), encoding="utf-8")
    return str(ordered)
