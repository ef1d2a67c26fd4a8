"""The trainer, end to end in this process, on a tiny random Llama."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import JobError
from finetuned_sdk.context import PROGRESS_FIELDS
from finetuned_sdk.testing import RecordingContext
from finetuned_sft.params import SFTParams

from .conftest import MakeContext, MakeRows, MakeTokenizer, chat, exchange

Run = Callable[..., RecordingContext]
MakeParams = Callable[..., SFTParams]

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(180),  # on a busy machine; alone each takes a few seconds
    # peft still asks transformers by the old name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture
def make_params(tiny_model: str, make_rows: MakeRows) -> MakeParams:
    def make(**changes: Any) -> SFTParams:
        base: dict[str, Any] = {
            "model": tiny_model,
            "dataset": changes.pop("dataset", None) or make_rows("train.jsonl", map(chat, range(32))),
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-2,
            "max_length": 64,
            "warmup_steps": 0,
        }
        return SFTParams.model_validate(base | changes)

    return make


@pytest.fixture
def run(make_context: MakeContext) -> Run:
    """Trains and gives back the context with everything that was reported."""

    def run_(params: SFTParams, **kwargs: Any) -> RecordingContext:
        from finetuned_sft.trainer import train

        ctx = make_context(params, **kwargs)
        train(ctx, params)
        return ctx

    return run_


def series(ctx: RecordingContext, name: str = "loss") -> list[float]:
    """A figure of each step that was logged."""
    return [report[name] for report in ctx.of_type("progress") if report["loss"] is not None]


def checkpoint_at(ctx: RecordingContext, step: int) -> Path:
    return next(Path(fact["path"]) for fact in ctx.of_type("checkpoint") if fact["step"] == step)


def adapter_weights(ctx: RecordingContext) -> dict[str, Any]:
    from safetensors.torch import load_file

    weights: dict[str, Any] = load_file(ctx.artifact_dir / "adapter" / "adapter_model.safetensors")
    return weights


def test_a_lora_run_learns_and_reports_every_step(run: Run, make_params: MakeParams) -> None:
    ctx = run(make_params(max_steps=12))
    losses = series(ctx)
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.2
    report = ctx.of_type("progress")[-1]
    assert set(PROGRESS_FIELDS) <= set(report)
    assert report["progress"] == 100.0
    assert (report["current_step"], report["total_steps"]) == (12, 12)
    assert (report["current_epoch"], report["total_epochs"]) == (1.5, 1.5)
    for name in ("learning_rate", "grad_norm", "mean_token_accuracy", "rss_gb"):
        assert report[name] >= 0
    assert report["samples_per_second"] > 0
    assert report["tokens_per_second"] > report["samples_per_second"]
    assert 0 <= report["data_wait_fraction"] <= 1


def test_steps_are_reported_before_the_first_is_done_and_also_when_they_are_not_logged(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetuned_training import reporting

    def steps(ctx: RecordingContext) -> list[int]:
        return [report["current_step"] for report in ctx.of_type("progress")]

    params = make_params(max_steps=5, logging_steps=3)
    monkeypatch.setattr(reporting, "REPORT_EVERY", float("inf"))
    assert steps(run(params)) == [0, 3, 5]
    monkeypatch.setattr(reporting, "REPORT_EVERY", 0.0)
    ctx = run(params)
    assert steps(ctx) == [0, 1, 2, 3, 4, 5]
    losses = [report["loss"] for report in ctx.of_type("progress")]
    assert losses[:3] == [None] * 3
    assert losses[3] == losses[4] == losses[5] > 0


def test_a_callback_that_cannot_be_made_fails_before_the_model_is_loaded(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    from finetuned_sdk.context import CallbackSpec
    from finetuned_sft import trainer

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    monkeypatch.setattr(trainer, "load_tokenizer", lambda *_: pytest.fail("the tokenizer was loaded"))
    spec = CallbackSpec(
        name="tracker",
        entry="finetuned_callbacks.tracker:create",
        params={"report_to": "wandb"},
        params_model="finetuned_callbacks.params:TrackerParams",
    )
    with pytest.raises(JobError, match="pip install wandb"):
        run(make_params(), callbacks=[spec])


def test_a_dataset_that_changed_since_the_checkpoint_is_not_gone_on_with(
    run: Run, make_params: MakeParams
) -> None:
    params = make_params(max_steps=4, save_steps=2)
    rows = Path(params.dataset)
    before = rows.read_text()
    checkpoint = checkpoint_at(run(params), 2)
    rows.write_text(before + json.dumps(chat(99)) + "\n")
    with pytest.raises(JobError, match="put it back") as caught:
        run(params, resume_from=checkpoint)
    assert caught.value.code == "dataset_changed"
    rows.write_text(before)
    assert run(params, resume_from=checkpoint).of_type("model")


def test_a_dataset_that_changes_while_it_is_read_is_refused(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetuned_sft import trainer

    params = make_params()
    load = trainer.load_rows

    def load_rows(*args: Any) -> Any:
        rows = load(*args)
        Path(params.dataset).write_text(json.dumps(chat(1)))
        return rows

    monkeypatch.setattr(trainer, "load_rows", load_rows)
    with pytest.raises(JobError, match="while it was read") as caught:
        run(params)
    assert caught.value.code == "dataset_changed"


def test_lineage_names_the_rows_that_were_read_though_the_file_is_edited_meanwhile(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    params = make_params(max_steps=2)
    digest = hashlib.sha256(Path(params.dataset).read_bytes()).hexdigest()
    report = RecordingContext.progress

    def edit(self: RecordingContext, **figures: Any) -> None:
        report(self, **figures)
        Path(params.dataset).write_text("{}")

    monkeypatch.setattr(RecordingContext, "progress", edit)
    assert run(params).of_type("model")[0]["lineage"]["dataset_sha256"] == digest


def test_the_time_of_other_callbacks_is_no_part_of_a_step(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from transformers import TrainerCallback

    slept: list[float] = []

    class Slow(TrainerCallback):  # type: ignore[misc]  # transformers has no types
        def on_step_end(self, *_: Any, **__: Any) -> None:
            slept.append(1.0)

        on_log = on_save = on_train_begin = on_step_end

    # A clock on which the slow callback alone takes time beside what the steps do.
    monkeypatch.setattr(RecordingContext, "load_callbacks", lambda _: [Slow()])
    real = time.perf_counter
    from finetuned_sft import trainer
    from finetuned_training import metering

    monkeypatch.setattr(
        trainer, "StepMeter", lambda: metering.StepMeter(clock=lambda: real() + 1000 * sum(slept))
    )
    ctx = run(make_params(max_steps=4, save_steps=1))
    assert len(slept) >= 12
    rates = [report["samples_per_second"] for report in ctx.of_type("progress")[1:]]
    assert all(rate > 4 / 500 for rate in rates)


def test_the_phases_follow_the_run(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int | None] = []
    enter = RecordingContext.phase

    def phase(self: RecordingContext, name: str) -> None:
        enter(self, name)
        steps.append(self.pulse.last.step)

    monkeypatch.setattr(RecordingContext, "phase", phase)
    ctx = run(make_params(max_steps=2, eval_split=0.2, eval_steps=2, save_steps=1))
    assert list(zip((fact["phase"] for fact in ctx.of_type("phase")), steps, strict=True)) == [
        ("preparing_data", None),
        ("loading_model", None),
        ("training", None),  # the first step, with all that it compiles, is still the start
        ("saving", 1),
        ("training", 1),
        ("evaluating", 2),
        ("saving", 2),
        ("training", 2),
        ("saving", 2),  # what is published
    ]


def test_the_phase_of_saving_lasts_until_retention_is_done(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[str | None] = []
    retain = RecordingContext.retain

    def noting(self: RecordingContext, *args: Any, **kwargs: Any) -> None:
        phases.append(self.pulse.last.phase)
        retain(self, *args, **kwargs)

    monkeypatch.setattr(RecordingContext, "retain", noting)
    run(make_params(max_steps=2, save_steps=1))
    assert phases == ["saving", "saving"]


def test_the_result_is_published_with_tokenizer_and_card_and_registered(
    run: Run, make_params: MakeParams
) -> None:
    import hashlib

    params = make_params(output_name="bugs-v1", max_steps=2)
    ctx = run(params)
    artifact, figures = ctx.of_type("artifact")
    assert (figures["name"], figures["kind"]) == ("step_metrics.csv", "file:fine-tune-results")
    names = {entry["path"] for entry in artifact["files"]}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    (model,) = ctx.of_type("model")
    digest = hashlib.sha256(Path(params.dataset).read_bytes()).hexdigest()
    assert (model["name"], model["kind"], model["base"]) == ("bugs-v1", "adapter", params.model)
    assert model["lineage"]["dataset_sha256"] == digest
    card = (ctx.artifact_dir / "adapter" / "README.md").read_text()
    for expected in ("bugs-v1", ctx.job_id, digest, "transformers", '"learning_rate": 0.01'):
        assert expected in card
    assert ctx.results["model"] == "bugs-v1"
    assert ctx.results["adapter_path"] == artifact["path"]
    assert ctx.results["train_loss"] == pytest.approx(sum(series(ctx)) / 2)


def test_prompt_tokens_carry_no_loss_in_the_batches_that_are_trained_on(
    run: Run,
    make_params: MakeParams,
    make_rows: MakeRows,
    tokenizer_factory: MakeTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from finetuned_sft.trainer import MeteredSFTTrainer

    batches = []
    original = MeteredSFTTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        batches.append({key: value.clone() for key, value in inputs.items() if hasattr(value, "clone")})
        return original(self, model, inputs, *args)

    monkeypatch.setattr(MeteredSFTTrainer, "training_step", training_step)
    two_turns = {"messages": chat(1)["messages"] + chat(2)["messages"]}
    run(make_params(dataset=make_rows("two.jsonl", [two_turns] * 4), max_steps=1))
    (batch,) = batches
    tokenizer = tokenizer_factory()
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        learned = [label for label in labels if label != -100]
        assert [label for label in learned if label not in ids] == []
        answers = "".join(f"{exchange(number)[1]}<|im_end|>\n" for number in (1, 2))
        assert tokenizer.decode(learned) == answers


@pytest.mark.parametrize("step", [3, 5, 7], ids=["in an epoch", "at its end", "in the next"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(
    run: Run, make_params: MakeParams, make_rows: MakeRows, step: int
) -> None:
    import torch

    # 20 rows are five steps to an epoch; dropout, so that random states count.
    rows = make_rows("twenty.jsonl", map(chat, range(20)))
    params = make_params(dataset=rows, max_steps=12, save_steps=1, save_total_limit=20, lora_dropout=0.1)
    whole = run(params)
    resumed = run(params, resume_from=checkpoint_at(whole, step))
    for name in ("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "current_epoch"):
        assert series(resumed, name) == series(whole, name)[step:]
    assert resumed.results["train_loss"] == whole.results["train_loss"]
    ours, theirs = adapter_weights(resumed), adapter_weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("step", [4, 6, 8], ids=["after a report", "at a report", "before one"])
def test_a_run_resumed_between_two_reports_reports_what_an_uninterrupted_one_does(
    run: Run, make_params: MakeParams, make_rows: MakeRows, step: int
) -> None:
    rows = make_rows("twenty.jsonl", map(chat, range(20)))
    params = make_params(
        dataset=rows,
        max_steps=12,
        logging_steps=3,
        save_steps=1,
        save_total_limit=20,
        lora_dropout=0.1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )

    def logged(ctx: RecordingContext) -> dict[int, tuple[float, ...]]:
        names = ("loss", "mean_token_accuracy", "entropy", "num_tokens", "grad_norm", "learning_rate")
        reports = [fact for fact in ctx.of_type("progress") if fact["current_step"] % 3 == 0]
        return {
            fact["current_step"]: tuple(fact[name] for name in names)
            for fact in reports
            if fact["loss"] is not None
        }

    whole = run(params)
    resumed = run(params, resume_from=checkpoint_at(whole, step))
    straight = logged(whole)
    assert list(straight) == [3, 6, 9, 12]
    assert logged(resumed) == {at: figures for at, figures in straight.items() if at > step}
    assert resumed.results["train_loss"] == whole.results["train_loss"]
    # The checkpoint of the resumed run holds what is not reported yet, too.
    again = run(params, resume_from=checkpoint_at(resumed, step + 1))
    assert logged(again) == {at: figures for at, figures in straight.items() if at > step + 1}
    assert again.results["train_loss"] == whole.results["train_loss"]


def test_a_stop_request_saves_a_checkpoint_and_ends_without_a_result(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params(save_steps=100)
    report = RecordingContext.progress

    def stop_at_two(self: RecordingContext, **figures: Any) -> None:
        report(self, **figures)
        if figures["current_step"] == 2:
            self.request_stop("pause", checkpoint=True)

    whole = run(params)
    with monkeypatch.context() as patch:
        patch.setattr(RecordingContext, "progress", stop_at_two)
        stopped = run(params)
    assert series(stopped) == series(whole)[:3]  # seen at the boundary after the third step
    assert [fact["step"] for fact in stopped.of_type("checkpoint")] == [3]
    assert not stopped.results
    assert not stopped.of_type("model")
    resumed = run(params, resume_from=checkpoint_at(stopped, 3))
    assert series(resumed) == series(whole)[3:]


def test_a_stop_without_checkpoint_leaves_none(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: RecordingContext, **_: Any) -> None:
        self.request_stop("cancel", checkpoint=False)

    monkeypatch.setattr(RecordingContext, "progress", stop)
    ctx = run(make_params(save_steps=100))
    assert not ctx.of_type("checkpoint")
    assert not ctx.results


def test_resuming_from_the_last_step_only_publishes(run: Run, make_params: MakeParams) -> None:
    params = make_params(max_steps=3)
    whole = run(params)
    again = run(params, resume_from=checkpoint_at(whole, 3))
    assert series(again) == []
    assert again.results["train_loss"] == whole.results["train_loss"]
    assert again.of_type("model")


def test_checkpoints_are_kept_to_the_limit(run: Run, make_params: MakeParams) -> None:
    ctx = run(make_params(save_steps=1, save_total_limit=2))
    assert [path.name for path in ctx.checkpoints] == ["checkpoint-5", "checkpoint-6"]


def test_full_tuning_changes_every_weight_and_publishes_a_whole_model(
    run: Run, make_params: MakeParams, tiny_model: str
) -> None:
    import torch
    from safetensors.torch import load_file

    ctx = run(make_params(method="full", learning_rate=1e-3, weight_decay=0.1))
    assert series(ctx)[-1] < series(ctx)[0]
    (model,) = ctx.of_type("model")
    assert model["kind"] == "full"
    trained = load_file(Path(model["path"]) / "model.safetensors")
    base = load_file(Path(tiny_model) / "model.safetensors")
    assert trained.keys() == base.keys()
    assert all(not torch.equal(trained[name], base[name]) for name in base)
    assert ctx.results["adapter_path"] is None


def test_qlora_trains_adapters_on_a_model_in_four_bits(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    from finetuned_sft.trainer import MeteredSFTTrainer

    kinds: set[str] = set()
    original = MeteredSFTTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        kinds.update(type(module).__name__ for module in model.modules())
        return original(self, model, inputs, *args)

    monkeypatch.setattr(MeteredSFTTrainer, "training_step", training_step)
    ctx = run(make_params(method="qlora"))
    assert "Linear4bit" in kinds
    assert series(ctx)[-1] < series(ctx)[0]
    assert ctx.of_type("model")[0]["lineage"]["method"] == "qlora"


def test_training_goes_on_from_an_earlier_adapter(run: Run, make_params: MakeParams) -> None:
    first = run(make_params(max_steps=8))
    second = run(make_params(adapter=first.results["adapter_path"], max_steps=2))
    assert series(second)[0] < series(first)[0] - 0.1
    assert second.of_type("model")[0]["lineage"]["adapter"] == first.results["adapter_path"]
    assert adapter_weights(second).keys() == adapter_weights(first).keys()


def test_an_earlier_adapter_goes_on_in_four_bits(run: Run, make_params: MakeParams) -> None:
    pytest.importorskip("bitsandbytes")
    first = run(make_params(max_steps=8))
    second = run(make_params(method="qlora", adapter=first.results["adapter_path"], max_steps=2))
    assert series(second)[0] < series(first)[0] - 0.1


def test_the_merged_model_answers_as_the_adapter_does(
    run: Run, make_params: MakeParams, tiny_model: str
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ctx = run(make_params(merge_adapter=True))
    merged = AutoModelForCausalLM.from_pretrained(ctx.results["merged_path"])
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = PeftModel.from_pretrained(base, ctx.results["adapter_path"])
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)
    assert [fact["kind"] for fact in ctx.of_type("model")] == ["adapter", "merged"]


@pytest.fixture
def worsening(make_params: MakeParams, make_rows: MakeRows) -> SFTParams:
    """Parameters of a run whose held-out rows are answered otherwise, so that eval_loss soon only rises."""
    question = chat(1)["messages"][0]
    contrary = {"messages": [question, {"role": "assistant", "content": "@@@@ ####"}]}
    return make_params(
        max_steps=40,
        learning_rate=0.05,
        eval_dataset=make_rows("contrary.jsonl", [contrary] * 4),
        eval_steps=1,
        early_stopping_patience=3,
        save_total_limit=40,
    )


def test_early_stopping_ends_the_run_and_goes_back_to_the_best_checkpoint(
    run: Run, worsening: SFTParams
) -> None:
    import torch
    from safetensors.torch import load_file

    ctx = run(worsening)
    losses = [fact["metrics"]["eval_loss"] for fact in ctx.of_type("evaluation")]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 3 < 40
    assert ctx.results["best_step"] == best
    assert ctx.results["eval_loss"] == min(losses)
    saved = load_file(checkpoint_at(ctx, best) / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in adapter_weights(ctx).items())


def test_early_stopping_goes_on_counting_after_a_resume(run: Run, worsening: SFTParams) -> None:
    whole = run(worsening)
    last = len(whole.of_type("evaluation"))
    resumed = run(worsening, resume_from=checkpoint_at(whole, last - 1))
    assert [fact["step"] for fact in resumed.of_type("evaluation")] == [last]
    assert resumed.results["best_step"] == whole.results["best_step"]
    assert resumed.results["eval_loss"] == whole.results["eval_loss"]


def test_the_best_checkpoint_is_remembered_over_two_resumes(run: Run, worsening: SFTParams) -> None:
    import torch

    whole = run(worsening)
    last = len(whole.of_type("evaluation"))
    second = run(worsening, resume_from=checkpoint_at(whole, last - 2))
    third = run(worsening, resume_from=checkpoint_at(second, last - 1))
    published = run(worsening, resume_from=checkpoint_at(third, last))
    for resumed in (third, published):
        assert resumed.results["best_step"] == whole.results["best_step"]
        assert resumed.results["eval_loss"] == whole.results["eval_loss"]
        ours, theirs = adapter_weights(resumed), adapter_weights(whole)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_figures_are_those_of_what_is_published_if_the_best_checkpoint_is_gone(
    run: Run, worsening: SFTParams
) -> None:
    whole = run(worsening)
    evaluations = whole.of_type("evaluation")
    shutil.rmtree(checkpoint_at(whole, whole.results["best_step"]))
    last = len(evaluations)
    ended = worsening.model_copy(update={"max_steps": last})
    for params, step in ((worsening, last - 1), (ended, last)):
        resumed = run(params, resume_from=checkpoint_at(whole, step))
        assert resumed.results["best_step"] is None
        assert resumed.results["eval_loss"] == evaluations[-1]["metrics"]["eval_loss"]


def test_an_eval_split_is_held_out_and_evaluated(run: Run, make_params: MakeParams) -> None:
    ctx = run(make_params(eval_split=0.25, eval_steps=3))
    assert [fact["step"] for fact in ctx.of_type("evaluation")] == [3, 6]
    assert ctx.results["eval_loss"] == ctx.of_type("evaluation")[-1]["metrics"]["eval_loss"]
    assert ctx.of_type("progress")[-1]["eval_loss"] == ctx.results["eval_loss"]
    assert ctx.of_type("model")[0]["lineage"]["dataset_rows"] == 24


def test_packing_gives_each_row_the_loss_that_it_has_alone(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention must stop at the rows' borders, also where no flash attention is installed."""
    rate = {"learning_rate": 1e-12, "max_steps": 1, "lora_dropout": 0.0}
    plain = run(make_params(per_device_train_batch_size=32, **rate))
    packed = run(make_params(per_device_train_batch_size=64, packing=True, max_length=256, **rate))
    assert series(packed)[0] == pytest.approx(series(plain)[0], rel=1e-4)
    assert series(packed, "current_epoch") == [1.0]


def test_one_times_eight_is_eight_times_one(run: Run, make_params: MakeParams, make_rows: MakeRows) -> None:
    # Rows of unlike lengths: a mean of means would differ.
    long = {"messages": [*chat(3)["messages"], *chat(4)["messages"]]}
    rows = make_rows("mixed.jsonl", [long if n % 3 else chat(n) for n in range(32)])
    common = {"dataset": rows, "lora_dropout": 0.0, "max_steps": 4}
    eight = run(make_params(per_device_train_batch_size=8, gradient_accumulation_steps=1, **common))
    ones = run(make_params(per_device_train_batch_size=1, gradient_accumulation_steps=8, **common))
    assert series(ones) == pytest.approx(series(eight), rel=1e-5)
    assert series(ones, "grad_norm") == pytest.approx(series(eight, "grad_norm"), rel=1e-3)


def test_the_steps_of_a_run_by_epochs_are_known_beforehand(
    run: Run, make_params: MakeParams, make_rows: MakeRows
) -> None:
    from finetuned_training.settings import total_steps

    rows = make_rows("ten.jsonl", map(chat, range(10)))
    params = make_params(dataset=rows, max_steps=None, num_train_epochs=1.5, gradient_accumulation_steps=2)
    ctx = run(params)
    assert {report["total_steps"] for report in ctx.of_type("progress")} == {total_steps(params, 10)}
    assert len(series(ctx)) == total_steps(params, 10) == 3


def test_a_gpu_that_torch_cannot_use_ends_the_job_with_a_remedy(run: Run, make_params: MakeParams) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use this machine's GPU")
    with pytest.raises(JobError, match="CUDA build") as caught:
        run(make_params(), device_ids=["gpu:GPU-0"])
    assert caught.value.code == "gpu_unusable"


def test_the_seed_decides_the_run(run: Run, make_params: MakeParams) -> None:
    first, same, other = (run(make_params(max_steps=2, seed=seed)) for seed in (1, 1, 2))
    assert series(first) == series(same)
    assert series(first) != series(other)


def test_a_wait_of_milliseconds_is_no_advice(run: Run, make_params: MakeParams) -> None:
    ctx = run(make_params(max_steps=24, save_steps=100, dataloader_num_workers=0))
    assert ctx.of_type("advice") == []


def test_a_starved_run_is_told_which_setting_to_change(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling as Collator

    collate = Collator.torch_call

    def slow(self: Any, examples: Any) -> Any:
        time.sleep(0.06)  # the work that starves the device
        return collate(self, examples)

    monkeypatch.setattr(Collator, "torch_call", slow)
    ctx = run(make_params(max_steps=24, save_steps=100, dataloader_num_workers=0))
    (advice,) = ctx.of_type("advice")
    assert advice["setting"] == "dataloader_num_workers"
    assert "dataloader_num_workers" in advice["message"]
    assert advice["figures"]["data_wait_fraction"] > 0.1


def test_batches_are_made_by_processes_of_their_own_by_default(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetuned_sft.trainer import MeteredSFTTrainer

    seen = []
    original = MeteredSFTTrainer.get_train_dataloader

    def get_train_dataloader(self: Any) -> Any:
        loader = original(self)
        seen.append((loader.num_workers, loader.prefetch_factor))
        return loader

    monkeypatch.setattr(MeteredSFTTrainer, "get_train_dataloader", get_train_dataloader)
    run(make_params(max_steps=1))
    ((workers, prefetch),) = seen
    assert workers >= 1
    assert prefetch >= 1


def test_a_loss_that_is_no_number_ends_the_job(
    run: Run, make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetuned_sft.trainer import MeteredSFTTrainer

    original = MeteredSFTTrainer.compute_loss
    monkeypatch.setattr(MeteredSFTTrainer, "compute_loss", lambda *a, **k: original(*a, **k) * float("nan"))
    with pytest.raises(JobError, match="learning_rate") as caught:
        run(make_params())
    assert caught.value.code == "loss_diverged"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "what colour is the lamp", "completion": " the lamp is red"},
        {"instruction": "what colour is the lamp", "output": "red"},
        {"conversations": [{"from": "human", "value": "what"}, {"from": "gpt", "value": "red"}]},
        {"text": "the lamp is red"},
    ],
    ids=["prompt_completion", "alpaca", "sharegpt", "text"],
)
def test_each_form_of_rows_trains(
    run: Run, make_params: MakeParams, make_rows: MakeRows, row: dict[str, Any]
) -> None:
    ctx = run(make_params(dataset=make_rows("rows.jsonl", [row] * 8), max_steps=3))
    assert series(ctx)[-1] < series(ctx)[0]


def test_callbacks_of_the_job_take_part(run: Run, make_params: MakeParams) -> None:
    from finetuned_sdk.context import CallbackSpec

    spec = CallbackSpec(
        name="checkpoint",
        entry="finetuned_callbacks.checkpoint:create",
        params={"best": 1, "last": 1, "metric": "eval_loss"},
        params_model="finetuned_callbacks.params:CheckpointParams",
    )
    params = make_params(
        eval_split=0.25,
        eval_steps=1,
        save_steps=1,
        callbacks=[{"name": "checkpoint", "params": {"best": 1, "last": 1}}],
    )
    ctx = run(params, callbacks=[spec])
    losses = [fact["metrics"]["eval_loss"] for fact in ctx.of_type("evaluation")]
    best = losses.index(min(losses)) + 1
    assert {path.name for path in ctx.checkpoints} == {f"checkpoint-{best}", "checkpoint-6"}


def test_a_checkpoint_of_an_hf_trainer_is_whole_when_it_is_reported(
    run: Run, make_params: MakeParams
) -> None:
    ctx = run(make_params(max_steps=2, save_steps=1))
    for fact in ctx.of_type("checkpoint"):
        state = json.loads((Path(fact["path"]) / "trainer_state.json").read_text())
        assert state["global_step"] == fact["step"]
        assert fact["metrics"]["loss"] == series(ctx)[fact["step"] - 1]
