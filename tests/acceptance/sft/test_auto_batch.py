"""A batch of ``auto``: found before the first step, without a trace in what is trained, and kept."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.sft.conftest import MakeContext, MakeRows, chat

from finetuned_sdk.testing import RecordingContext
from finetuned_sft.params import SFTParams
from finetuned_training import batch_probe
from finetuned_training.batch_search import Tried
from finetuned_training.reduction import reduce_memory

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

FIGURES = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "num_tokens", "current_epoch")
Make = Callable[..., SFTParams]


@pytest.fixture
def params(tiny_model: str, make_rows: MakeRows) -> Make:
    """A job of eight rows a step, of rows of unlike lengths, with dropout and loader processes."""
    rows = [
        {"messages": [*chat(n)["messages"], *(chat(n + 1)["messages"] if n % 3 else [])]} for n in range(30)
    ]
    file = make_rows("unlike.jsonl", rows)

    def make(**changes: Any) -> SFTParams:
        given = {
            "model": tiny_model,
            "dataset": file,
            "per_device_train_batch_size": "auto",
            "gradient_accumulation_steps": 2,
            "max_length": 64,
            "max_steps": 6,
            "save_steps": 2,
            "save_total_limit": 9,
            "lora_dropout": 0.1,
        }
        return SFTParams.model_validate({**given, **changes})

    return make


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """The rows/s that each batch is said to have after it was really tried; the asked ones are its keys, in order."""
    wanted = {1: 1.0, 2: 5.0, 4: 3.0, 8: 2.0}
    asked: dict[int, float] = {}
    probe = batch_probe.Prober.__call__

    def call(self: batch_probe.Prober, batch: int) -> Tried:
        found = probe(self, batch)
        asked[batch] = wanted[batch]
        return Tried(
            batch=batch,
            fits=found.fits,
            rows_per_second=wanted[batch],
            tokens_per_second=found.tokens_per_second,
            peak_bytes=found.peak_bytes,
        )

    monkeypatch.setattr(batch_probe.Prober, "__call__", call)
    return asked


def trained(ctx: RecordingContext, wanted: SFTParams) -> RecordingContext:
    from finetuned_sft.trainer import train

    train(ctx, wanted)
    return ctx


def series(ctx: RecordingContext) -> list[tuple[Any, ...]]:
    """The figures of each step that was reported, in order; an evaluation reports its step again."""
    steps = {fact["current_step"]: fact for fact in ctx.of_type("progress") if fact["current_step"]}
    return [tuple(fact.get(name) for name in FIGURES) for fact in steps.values()]


def weights(ctx: RecordingContext) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(ctx.artifact_dir / "adapter" / "adapter_model.safetensors")


def checkpoint_at(ctx: RecordingContext, step: int) -> Path:
    return next(Path(fact["path"]) for fact in ctx.of_type("checkpoint") if fact["step"] == step)


def same_weights(one: RecordingContext, other: RecordingContext) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine)


def test_what_auto_finds_is_trained_as_if_it_had_been_given_and_kept_on_resume(
    params: Make, make_context: MakeContext, rates: dict[int, float]
) -> None:
    wanted = params(eval_split=0.2, eval_steps=3)
    given = wanted.with_batch(2)
    found = trained(make_context(wanted), wanted)
    assert list(rates) == [1, 2, 4, 8]
    assert found.results["per_device_train_batch_size"] == 2
    assert found.results["gradient_accumulation_steps"] == 4
    assert [
        (each["batch"], each["accumulation"], each["fits"]) for each in found.results["batches_tried"]
    ] == [
        (1, 8, True),
        (2, 4, True),
        (4, 2, True),
        (8, 1, True),
    ]
    assert all(each["tokens_per_second"] > 0 < each["peak_bytes"] for each in found.results["batches_tried"])
    advice = [each for each in found.of_type("advice") if each["setting"] == "per_device_train_batch_size"]
    assert "set per_device_train_batch_size=2 and gradient_accumulation_steps=4" in advice[0]["message"]

    straight = trained(make_context(given), given)
    assert series(found) == series(straight)
    assert same_weights(found, straight)
    assert found.results["eval_loss"] == straight.results["eval_loss"]

    # A resumed attempt has no cache here: what it goes on with is in its checkpoint.
    rates.clear()
    resumed = trained(make_context(wanted, resume_from=checkpoint_at(found, 4)), wanted)
    assert not rates
    assert series(resumed) == series(straight)[4:]
    assert same_weights(resumed, straight)

    # After memory ran out half of it is taken, and the steps have the same rows.
    halved = wanted.model_copy(update=dict(reduce_memory(wanted) or {}))
    smaller = trained(make_context(halved, resume_from=checkpoint_at(resumed, 6)), halved)
    assert smaller.results["per_device_train_batch_size"] == 1
    assert smaller.results["gradient_accumulation_steps"] == 8
    smaller = trained(make_context(halved, resume_from=checkpoint_at(found, 4)), halved)
    quarter = halved.model_copy(update=dict(reduce_memory(halved) or {}))
    assert quarter.auto_batch_divisor == 4
    assert (
        trained(make_context(quarter, resume_from=checkpoint_at(smaller, 6)), quarter).results[
            "per_device_train_batch_size"
        ]
        == 1
    )
    assert not rates


def test_half_a_batch_has_the_same_rows_and_losses(
    params: Make, make_context: MakeContext, rates: dict[int, float]
) -> None:
    wanted = params(lora_dropout=0.0)
    whole = trained(make_context(wanted), wanted)
    halved = wanted.model_copy(update={"auto_batch_divisor": 2})
    resumed = trained(make_context(halved, resume_from=checkpoint_at(whole, 2)), halved)
    for mine, theirs in zip(series(resumed), series(whole)[2:], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-2)
        assert mine[0] == pytest.approx(theirs[0], rel=1e-4)


def test_another_job_like_it_takes_what_was_found_and_one_unlike_it_looks_again(
    params: Make, make_context: MakeContext, rates: dict[int, float], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    wanted = params(max_steps=1)
    trained(make_context(wanted, cache=cache), wanted)
    assert list(rates) == [1, 2, 4, 8]
    rates.clear()
    again = params(max_steps=2, seed=3)
    second = trained(make_context(again, cache=cache), again)
    assert not rates
    assert second.results["per_device_train_batch_size"] == 2
    assert "batches_tried" not in second.results
    unlike = params(max_steps=1, max_length=32)
    trained(make_context(unlike, cache=cache), unlike)
    assert list(rates) == [1, 2, 4, 8]

    # What does not fit any more is looked for again, and so is what cannot be read.
    files = list((cache / "batch-shapes").iterdir())
    rates.clear()
    for file in files:
        file.write_text(json.dumps({"batch": 2, "divisor": 1, "peak_bytes": 1 << 60}))
    trained(make_context(again, cache=cache), again)
    assert rates
    rates.clear()
    for file in files:
        file.write_text("{")
    trained(make_context(again, cache=cache), again)
    assert rates


def test_tuning_alone_tells_what_it_tried_and_trains_nothing(
    params: Make, make_context: MakeContext, rates: dict[int, float], tmp_path: Path
) -> None:
    wanted, cache = params(tune_only=True), tmp_path / "cache"
    for _ in range(2):  # it looks each time
        rates.clear()
        ctx = trained(make_context(wanted, cache=cache), wanted)
        assert list(rates) == [1, 2, 4, 8]
        assert len(ctx.results["batches_tried"]) == 4
        assert not ctx.of_type("progress")
        assert not ctx.of_type("model")


def test_a_probe_leaves_no_trace(
    params: Make, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every generator, every weight and what the trainer counted are the same before and after."""
    import numpy as np
    import torch

    from finetuned_training import batch_shape

    def state(trainer: Any) -> list[Any]:
        generators = [random.getstate(), torch.get_rng_state().tolist(), repr(np.random.get_state())]  # noqa: NPY002
        values = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        gradients = [name for name, weight in trainer.model.named_parameters() if weight.grad is not None]
        counts = [dict(trainer._metrics["train"]), trainer._total_train_tokens, trainer.model.training]
        return [generators, values, gradients, counts]

    found: list[bool] = []
    find = batch_shape.find

    def compared(ctx: Any, wanted: Any, trainer: Any, lengths: Any) -> Any:
        before = state(trainer)
        drew = random.getstate()
        result = find(ctx, wanted, trainer, lengths)
        after = state(trainer)
        assert before[0] == after[0]
        assert drew == random.getstate()
        assert all(torch.equal(before[1][name], after[1][name]) for name in before[1])
        assert before[2:] == after[2:] == [[], [{}, 0, before[3][2]]]
        found.append(True)
        return result

    monkeypatch.setattr(batch_shape, "find", compared)
    wanted = params(tune_only=True)
    trained(make_context(wanted), wanted)
    assert found


def test_a_gpu_that_runs_out_of_memory_ends_the_search_there(
    params: Make, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from finetuned_training.metering import MeteredTrainer

    try_pass = MeteredTrainer.try_pass

    def exhausted(self: MeteredTrainer, rows: Any) -> None:
        rows = list(rows)
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        try_pass(self, rows)

    monkeypatch.setattr(MeteredTrainer, "try_pass", exhausted)
    wanted = params(tune_only=True)
    ctx = trained(make_context(wanted), wanted)
    assert [(each["batch"], each["fits"]) for each in ctx.results["batches_tried"]] == [
        (1, True),
        (2, True),
        (4, False),
    ]
    assert ctx.results["per_device_train_batch_size"] in {1, 2}


def test_rows_that_are_sorted_within_a_step_are_the_same_rows_with_less_padding(
    params: Make, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetuned_sft.trainer import MeteredSFTTrainer

    passes: list[tuple[int, list[list[int]]]] = []
    step = MeteredSFTTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        passes.append((self.state.global_step, inputs["input_ids"].tolist()))
        return step(self, model, inputs, *args)

    monkeypatch.setattr(MeteredSFTTrainer, "training_step", training_step)

    def run(**changes: Any) -> tuple[RecordingContext, dict[int, list[list[int]]], int]:
        wanted = params(
            per_device_train_batch_size=2, gradient_accumulation_steps=4, lora_dropout=0.0, **changes
        )
        passes.clear()
        ctx = trained(make_context(wanted), wanted)
        by_step: dict[int, list[list[int]]] = {}
        for number, rows in passes:
            by_step.setdefault(number, []).extend([token for token in row if token] for row in rows)
        cells = sum(len(rows) * len(rows[0]) for _, rows in passes)
        return ctx, by_step, cells

    plain, plain_rows, plain_cells = run()
    ordered, ordered_rows, ordered_cells = run(sort_within_step=True)
    assert {number: sorted(rows) for number, rows in plain_rows.items()} == {
        number: sorted(rows) for number, rows in ordered_rows.items()
    }
    assert ordered_rows != plain_rows
    assert ordered_cells < plain_cells
    for mine, theirs in zip(series(ordered), series(plain), strict=True):
        assert mine[0] == pytest.approx(theirs[0], rel=1e-4)
        assert mine[4] == theirs[4]  # tokens
    resumed = params(
        per_device_train_batch_size=1,
        gradient_accumulation_steps=8,
        lora_dropout=0.0,
        sort_within_step=True,
    )
    passes.clear()
    trained(make_context(resumed, resume_from=checkpoint_at(ordered, 4)), resumed)
    again: dict[int, list[list[int]]] = {}
    for number, rows in passes:
        again.setdefault(number, []).extend([token for token in row if token] for row in rows)
    assert again == {number: rows for number, rows in ordered_rows.items() if number >= 4}
