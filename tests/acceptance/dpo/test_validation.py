"""The validation attempt of a DPO job: what it refuses, what it counts, and that it needs no torch."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetuned_dpo.params import DPOParams
from finetuned_dpo.validation import validate
from finetuned_sdk import BadDatasetError
from finetuned_sdk.testing import RecordingContext

from .conftest import pair, write

pytestmark = pytest.mark.torch  # needs transformers' tokenizers, though not torch itself

Validate = Callable[..., RecordingContext]


@pytest.fixture
def run(tiny_model: str, tmp_path: Path, make_context: Any) -> Validate:
    def run_(rows: list[dict[str, Any]], **changes: Any) -> RecordingContext:
        dataset = write(tmp_path / "rows.jsonl", rows)
        params = DPOParams.model_validate({"model": tiny_model, "dataset": dataset, **changes})
        ctx: RecordingContext = make_context(params)
        validate(ctx, params)
        return ctx

    return run_


def report_of(ctx: RecordingContext) -> dict[str, Any]:
    report: dict[str, Any] = dict(ctx.of_type("audit")[0]["report"])
    return report


def advice_of(ctx: RecordingContext) -> dict[str, str]:
    return {fact["setting"]: fact["message"] for fact in ctx.of_type("advice")}


def test_what_can_be_trained_on_is_audited(run: Validate, tmp_path: Path) -> None:
    report = report_of(run([pair(number) for number in range(40)]))
    assert (report["format"], report["rows"], report["truncated_rows"]) == ("preference", 40, 0)
    assert report["sha256"] == hashlib.sha256((tmp_path / "rows.jsonl").read_bytes()).hexdigest()
    assert report["max_tokens"] * 2 * 40 > report["tokens"] > 40
    assert report["extra"]["mean_chosen_tokens"] > 0


def test_bad_rows_end_the_job_with_their_numbers(run: Validate) -> None:
    empty = {"prompt": "a", "chosen": " ", "rejected": "b"}
    with pytest.raises(BadDatasetError) as caught:
        run([pair(0), {"prompt": "a", "chosen": "b"}, empty], dataset_format="preference")
    message = caught.value.message
    assert "row 2" in message
    assert '"rejected" is missing' in message
    assert "row 3" in message
    assert '"chosen" is empty' in message


SAME = {**pair(3), "rejected": pair(3)["chosen"]}


def test_a_few_pairs_without_a_difference_are_named_and_left_out(run: Validate) -> None:
    ctx = run([*map(pair, range(19)), SAME])
    report = report_of(ctx)
    assert (report["rows"], report["unanswered_rows"]) == (20, 1)
    assert (report["extra"]["alike_rows"], report["extra"]["alike_row_numbers"]) == (1, [20])
    assert (
        "1 of 20 pairs have two answers that are the same and are left out (row 20)"
        in advice_of(ctx)["dataset"]
    )

    from finetuned_dpo.trainer import load_pairs
    from finetuned_training.chat import load_tokenizer

    params = DPOParams.model_validate(ctx.metadata["params"])
    left = load_pairs(ctx, "dataset", "train", params, load_tokenizer(params.model, params))
    assert len(left) == 19


def test_many_pairs_without_a_difference_end_the_job_with_their_numbers(run: Validate) -> None:
    with pytest.raises(BadDatasetError) as caught:
        run(
            [*map(pair, range(8)), SAME, {"prompt": "a", "chosen": "b", "rejected": "b"}],
            dataset_format="preference",
        )
    message = caught.value.message
    assert "row 9: its two answers are the same" in message
    assert "row 10" in message
    assert "up to 10% of the pairs may be like that" in message


def test_pairs_that_the_cut_makes_alike_are_counted_and_if_all_are_the_job_ends(run: Validate) -> None:
    long = {"prompt": "apple", "chosen": " river" * 90 + " red", "rejected": " river" * 90 + " blue"}
    ctx = run([pair(0), long], max_length=48, dataset_format=None)
    assert report_of(ctx)["unanswered_rows"] == 1
    assert "1 of 2 pairs have no difference left" in advice_of(ctx)["max_length"]
    with pytest.raises(BadDatasetError, match="Raise max_length"):
        run([long], max_length=48)


def test_a_preference_for_length_is_told(run: Validate) -> None:
    longer = [
        {"prompt": f"apple {number}", "chosen": " red apple and blue river", "rejected": " red"}
        for number in range(30)
    ]
    advice = advice_of(run(longer))["loss_type"]
    assert "In 100% of the pairs the longer answer is preferred" in advice
    assert "sigmoid_norm" in advice


def test_held_out_pairs_that_are_trained_on_are_told(run: Validate, tmp_path: Path) -> None:
    held_out = write(tmp_path / "held-out.jsonl", map(pair, range(5)))
    ctx = run([pair(number) for number in range(40)], eval_dataset=held_out)
    assert "5 of 5 held-out pairs are trained on" in advice_of(ctx)["eval_dataset"]


def test_messages_need_a_chat_template(tmp_path: Path, make_context: Any) -> None:
    from tests.acceptance.sft.tiny import make_tokenizer

    make_tokenizer(chat_template=None).save_pretrained(tmp_path / "bare")
    params = DPOParams(model=str(tmp_path / "bare"), dataset=write(tmp_path / "rows.jsonl", [pair(0)]))
    with pytest.raises(BadDatasetError, match="the model has no chat template"):
        validate(make_context(params), params)


def test_validation_imports_no_torch() -> None:
    code = "import sys, finetuned_dpo.validation, finetuned_dpo.plugin; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
