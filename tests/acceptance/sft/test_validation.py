"""The validation attempt: what it refuses, what it counts, and that it starts without torch."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import BadDatasetError, JobError
from finetuned_sdk.testing import RecordingContext
from finetuned_sft.params import SFTParams
from finetuned_sft.validation import validate

from .conftest import MakeContext, MakeRows, MakeTokenizer, chat

pytestmark = pytest.mark.torch  # needs transformers' tokenizers, though not torch itself


@pytest.fixture
def model(tmp_path: Path, tokenizer_factory: MakeTokenizer) -> str:
    """A directory with a tokenizer and no weights: validation needs no more."""
    directory = tmp_path / "model"
    tokenizer_factory().save_pretrained(directory)
    return str(directory)


def test_what_can_be_trained_on_is_audited(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    dataset = make_rows("rows.jsonl", map(chat, range(40)))
    params = SFTParams(model=model, dataset=dataset)
    ctx = make_context(params)
    validate(ctx, params)
    (fact,) = ctx.of_type("audit")
    report = fact["report"]
    assert (report["format"], report["rows"]) == ("messages", 40)
    assert (report["truncated_rows"], report["unanswered_rows"]) == (0, 0)
    assert report["sha256"] == hashlib.sha256(Path(dataset).read_bytes()).hexdigest()
    assert 0.3 < report["masked_fraction"] < 0.9
    assert report["max_tokens"] <= report["tokens"]
    assert not ctx.of_type("advice")
    assert [fact["phase"] for fact in ctx.of_type("phase")] == ["validating"]


def test_the_audit_counts_what_the_trainer_learns(
    tiny_model: str, make_rows: MakeRows, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetuned_sft.trainer import load_rows
    from finetuned_training.model import load_tokenizer

    params = SFTParams(model=tiny_model, dataset=make_rows("rows.jsonl", map(chat, range(9))), max_length=20)
    ctx = make_context(params)
    validate(ctx, params)
    report = ctx.of_type("audit")[0]["report"]
    tokenizer, signs = load_tokenizer(tiny_model, params), list[int]()
    monkeypatch.setattr(type(ctx), "advancing", lambda _ctx: signs.append(1))
    rows = load_rows(ctx, "dataset", "train", params, tokenizer)
    assert len(signs) == report["rows"]  # or the watchdog would take a large dataset for a hung start
    labels = [label for row in rows for label in row["labels"]]
    assert len(rows) == report["rows"] - report["unanswered_rows"]
    if not report["unanswered_rows"]:
        assert report["tokens"] == len(labels)
        assert report["masked_fraction"] == pytest.approx(labels.count(-100) / len(labels))


def test_every_bad_row_is_named_with_its_line(model: str, tmp_path: Path, make_context: MakeContext) -> None:
    good = json.dumps(chat(1))
    empty = json.dumps(
        {"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "x"}]}
    )
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text(f'{good}\n\n{{broken\n{good}\n{empty}\n{{"text": "other form"}}\n')
    params = SFTParams(model=model, dataset=str(dataset))
    with pytest.raises(BadDatasetError) as caught:
        validate(make_context(params), params)
    assert [problem.row for problem in caught.value.problems] == [3, 5, 6]
    assert "row 3: malformed JSON" in caught.value.message
    assert "the content of message 1 is empty" in caught.value.message
    assert str(dataset) in caught.value.message


def test_a_thousand_bad_rows_are_counted_and_a_hundred_kept(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    params = SFTParams(model=model, dataset=make_rows("rows.jsonl", [{"messages": []}] * 1000))
    with pytest.raises(BadDatasetError, match="and 995 more") as caught:
        validate(make_context(params), params)
    assert (caught.value.total, len(caught.value.problems)) == (1000, 100)


def test_rows_of_no_known_form_are_refused_with_the_forms(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    params = SFTParams(model=model, dataset=make_rows("rows.jsonl", [{"question": "q", "answer": "a"}]))
    with pytest.raises(BadDatasetError, match=r'row 1: has "question", "answer".*prompt_completion'):
        validate(make_context(params), params)


def test_an_empty_dataset_is_refused(model: str, make_rows: MakeRows, make_context: MakeContext) -> None:
    params = SFTParams(model=model, dataset=make_rows("rows.jsonl", []))
    with pytest.raises(BadDatasetError, match="there are no rows"):
        validate(make_context(params), params)


def audit(
    model: str, dataset: str, make_context: MakeContext, **changes: Any
) -> tuple[Any, RecordingContext]:
    params = SFTParams(model=model, dataset=dataset, **changes)
    ctx = make_context(params)
    validate(ctx, params)
    return ctx.of_type("audit")[0]["report"], ctx


def settings(ctx: RecordingContext) -> list[str]:
    return [fact["setting"] for fact in ctx.of_type("advice")]


def test_rows_without_an_answer_after_the_cut_are_counted_and_advised_on(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    long = {"prompt": "the river " * 40, "completion": "red"}
    short = {"prompt": "the river is", "completion": " red"}
    rows = make_rows("rows.jsonl", [long, *[short] * 19])
    report, ctx = audit(model, rows, make_context, max_length=32, apply_chat_template=False)
    assert (report["truncated_rows"], report["unanswered_rows"]) == (1, 1)
    assert "max_length" in settings(ctx)
    assert report["warnings"]


def test_a_dataset_of_which_nothing_is_left_is_refused(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    rows = make_rows("rows.jsonl", [{"prompt": "the river " * 40, "completion": "red"}] * 3)
    with pytest.raises(BadDatasetError, match=r"Raise max_length \(16; the longest row has \d+ tokens\)"):
        audit(model, rows, make_context, max_length=16)


def test_plain_strings_for_a_chat_model_are_advised_on(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    rows = make_rows("rows.jsonl", [{"prompt": f"the lamp {n} is", "completion": " red"} for n in range(20)])
    assert settings(audit(model, rows, make_context)[1]) == ["apply_chat_template"]
    assert settings(audit(model, rows, make_context, apply_chat_template=True)[1]) == []


def test_held_out_rows_that_are_trained_on_are_advised_on(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    train = make_rows("train.jsonl", map(chat, range(20)))
    held_out = make_rows("held-out.jsonl", map(chat, range(18, 24)))
    _, ctx = audit(model, train, make_context, eval_dataset=held_out)
    (advice,) = ctx.of_type("advice")
    assert advice["setting"] == "eval_dataset"
    assert advice["message"].startswith("2 of 6 held-out rows")
    assert len(ctx.of_type("audit")) == 2


def test_more_rows_a_step_than_there_are_is_advised_on(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    rows = make_rows("rows.jsonl", map(chat, range(5)))
    assert settings(audit(model, rows, make_context)[1]) == ["gradient_accumulation_steps"]


def test_a_template_without_stop_token_is_advised_on(
    tmp_path: Path, tokenizer_factory: MakeTokenizer, make_rows: MakeRows, make_context: MakeContext
) -> None:
    endless = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
    tokenizer_factory(endless).save_pretrained(tmp_path / "endless")
    rows = make_rows("rows.jsonl", map(chat, range(20)))
    assert settings(audit(str(tmp_path / "endless"), rows, make_context)[1]) == ["chat_template"]


def test_a_split_that_leaves_nothing_is_refused(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    with pytest.raises(JobError, match="leaves none to train on"):
        audit(model, make_rows("rows.jsonl", [chat(1)]), make_context, eval_split=0.5)


def test_a_model_without_tokenizer_is_refused(
    tmp_path: Path, make_rows: MakeRows, make_context: MakeContext
) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(JobError, match="tokenizer of") as caught:
        audit(str(tmp_path / "bare"), make_rows("rows.jsonl", [chat(1)]), make_context)
    assert caught.value.code == "tokenizer_unloadable"


def test_remote_code_needs_the_operators_word_when_the_attempt_runs(
    model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    from finetuned_sft.trainer import train

    params = SFTParams(model=model, dataset=make_rows("rows.jsonl", [chat(1)]), trust_remote_code=True)
    for work in (validate, train):
        with pytest.raises(JobError) as caught:
            work(make_context(params), params)
        assert caught.value.code == "remote_code_not_allowed"
    validate(make_context(params, allow_remote_code=True), params)


def test_a_stop_request_ends_the_reading(model: str, make_rows: MakeRows, make_context: MakeContext) -> None:
    params = SFTParams(model=model, dataset=make_rows("rows.jsonl", map(chat, range(40))))
    ctx = make_context(params)
    ctx.request_stop("cancel", checkpoint=False)
    validate(ctx, params)
    assert ctx.was_stopped
    assert not ctx.of_type("audit")


def test_validation_never_imports_torch(model: str, make_rows: MakeRows, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from finetuned_sdk.testing import RecordingContext
from finetuned_sft.params import SFTParams
from finetuned_sft.validation import validate
params = SFTParams(model={model!r}, dataset={make_rows("rows.jsonl", map(chat, range(40)))!r})
ctx = RecordingContext(Path({str(tmp_path / "state")!r}), params=params.model_dump(), models={{"model": params.model}})
validate(ctx, params)
print(len(ctx.of_type("audit")), sorted({{"torch", "trl", "peft", "datasets"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"
