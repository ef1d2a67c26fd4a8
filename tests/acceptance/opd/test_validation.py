"""The validation attempt of an OPD job: what it refuses, what it counts, and that it needs no torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from finetuned_opd.params import OPDParams
from finetuned_opd.validation import validate
from finetuned_sdk import BadDatasetError, JobError
from finetuned_sdk.testing import RecordingContext

from .conftest import MakeParams, row, write

pytestmark = pytest.mark.torch  # needs transformers' tokenizers, though not torch itself

Validate = Callable[..., RecordingContext]


@pytest.fixture
def validated(make_params: MakeParams, tmp_path: Path, make_context: Any) -> Validate:
    """Validates rows, and gives back what was said of them."""

    def run(rows: Sequence[Mapping[str, Any]], **changes: Any) -> RecordingContext:
        params = make_params(dataset=write(tmp_path / "rows.jsonl", rows), **changes)
        ctx: RecordingContext = make_context(params)
        validate(ctx, params)
        return ctx

    return run


def report_of(ctx: RecordingContext, number: int = 0) -> dict[str, Any]:
    report: dict[str, Any] = dict(ctx.of_type("audit")[number]["report"])
    return report


def advice_of(ctx: RecordingContext) -> dict[str, str]:
    return {fact["setting"]: fact["message"] for fact in ctx.of_type("advice")}


def refused(validated: Validate, rows: Sequence[Mapping[str, Any]], **changes: Any) -> BadDatasetError:
    with pytest.raises(BadDatasetError) as caught:
        validated(rows, **changes)
    return caught.value


LONG = {"prompt": "river " * 90}


def asked(number: int) -> dict[str, Any]:
    """A row without an answer."""
    return {"prompt": row(number)["prompt"]}


# ---- prompts ---------------------------------------------------------------------------------------------


def test_prompts_are_counted_with_their_tokens(validated: Validate, tmp_path: Path) -> None:
    ctx = validated([row(number) for number in range(32)])
    report = report_of(ctx)
    assert (report["format"], report["rows"], report["unanswered_rows"]) == ("prompt_completion", 32, 0)
    assert report["sha256"] == hashlib.sha256((tmp_path / "rows.jsonl").read_bytes()).hexdigest()
    prompts = report["extra"]["mean_prompt_tokens"] * 32
    assert report["masked_fraction"] == pytest.approx(prompts / report["tokens"], rel=0.01)
    assert report["max_tokens"] < report["tokens"] / 32
    assert report["extra"]["rows_with_answer"] == 32
    assert advice_of(ctx) == {}


def test_prompts_alone_are_enough_when_the_student_answers_all(validated: Validate) -> None:
    ctx = validated([asked(number) for number in range(8)])
    assert report_of(ctx)["format"] == "prompt"
    assert report_of(ctx)["extra"]["rows_with_answer"] == 0
    assert "lmbda" not in advice_of(ctx)


def test_prompts_without_room_are_left_out_and_told(validated: Validate, make_context: Any) -> None:
    ctx = validated([*map(asked, range(9)), LONG])
    assert (report_of(ctx)["rows"], report_of(ctx)["unanswered_rows"]) == (10, 1)
    told = advice_of(ctx)["max_length"]
    assert told.startswith(
        "1 of 10 prompts leave no room for 12 tokens within max_length=96 and are left out"
    )

    from finetuned_opd.trainer import load_prompts
    from finetuned_training.chat import load_tokenizer

    params = OPDParams.model_validate(ctx.metadata["params"])
    left = load_prompts(ctx, "dataset", "train", params, load_tokenizer(params.model, params))
    assert len(left) == 9


def test_if_no_prompt_has_room_the_job_ends_with_what_to_change(validated: Validate) -> None:
    error = refused(validated, [LONG, LONG])
    assert error.total == 2
    assert "row 1: its prompt leaves no room for an answer" in error.message
    assert (
        "Raise max_length (96) or lower max_completion_length (12): prompts may have 84 tokens"
        in error.message
    )


def test_answers_are_cut_to_what_the_student_may_answer(validated: Validate) -> None:
    answered = {"prompt": "what colour", "completion": " red" * 40}
    report = report_of(validated([answered, row(0)]))
    assert report["truncated_rows"] == 1
    assert report["tokens"] < 96


def test_rows_without_an_answer_are_told_where_answers_are_learned(validated: Validate) -> None:
    mixed = [asked(2), row(0), row(1)]
    assert report_of(validated([*mixed[1:], mixed[0]]))["extra"]["rows_with_answer"] == 2
    assert advice_of(validated(mixed, lmbda=0.5))["lmbda"] == (
        "1 of 3 rows have no answer, and are answered by the student."
    )
    assert advice_of(validated(mixed, lmbda=0.0))["lmbda"] == "1 of 3 rows have no answer, and are left out."
    error = refused(validated, [asked(0)], lmbda=0.0)
    assert "row 1: it has no answer" in error.message
    assert "add answers, or raise lmbda" in error.message


def test_prompts_that_come_again_and_held_out_ones_that_are_trained_on_are_told(
    validated: Validate, tmp_path: Path
) -> None:
    held_out = write(tmp_path / "held-out.jsonl", map(asked, range(28, 34)))
    ctx = validated([*map(asked, range(30)), *map(asked, range(10))], eval_dataset=held_out)
    assert advice_of(ctx)["dataset"] == "10 of 40 prompts are the same as an earlier one."
    assert advice_of(ctx)["eval_dataset"].startswith("2 of 6 held-out prompts are trained on as well")
    assert [report_of(ctx, at)["extra"]["param"] for at in (0, 1)] == ["dataset", "eval_dataset"]
    assert report_of(ctx)["extra"]["duplicate_rows"] == 10
    assert report_of(ctx, 1)["extra"]["leaked_rows"] == 2


def test_fewer_prompts_than_a_step_takes_are_told(validated: Validate) -> None:
    told = advice_of(validated([row(0), row(1)], gradient_accumulation_steps=4))
    assert (
        "There are 2 prompts, fewer than one optimizer step takes (16)" in told["gradient_accumulation_steps"]
    )


def test_a_share_for_evaluation_that_leaves_nothing_is_refused(validated: Validate) -> None:
    with pytest.raises(JobError, match=r"eval_split=0\.9 of 1 prompts leaves none to train on") as caught:
        validated([row(0)], eval_split=0.9)
    assert caught.value.code == "bad_dataset"


def test_bad_rows_end_the_job_with_their_numbers(validated: Validate) -> None:
    ends_with_an_answer = {"prompt": [*row(0)["prompt"], {"role": "assistant", "content": "red"}]}
    error = refused(validated, [asked(0), {"prompt": 7}, ends_with_an_answer, asked(1)])
    assert [problem.row for problem in error.problems] == [2, 3]
    assert "row 3: the prompt ends with a message from assistant, not from user" in error.message


def test_scored_rows_without_their_setting_are_told_what_to_set(validated: Validate) -> None:
    error = refused(validated, [scored()])
    assert "row 1: scored rows are tokens already; set precomputed_scores=true" in error.message


def test_messages_need_a_chat_template(make_params: MakeParams, tmp_path: Path, make_context: Any) -> None:
    from tests.acceptance.sft.tiny import chat, make_tokenizer

    shutil.copytree(make_params().model, tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink(missing_ok=True)
    make_tokenizer(chat_template=None).save_pretrained(tmp_path / "bare")
    params = make_params(model=str(tmp_path / "bare"), dataset=write(tmp_path / "rows.jsonl", [chat(0)]))
    with pytest.raises(JobError, match="has no chat template, so messages rows cannot be rendered") as caught:
        validate(make_context(params), params)
    assert caught.value.code == "chat_template_missing"


def test_a_job_that_is_asked_to_stop_reports_nothing(
    make_params: MakeParams, make_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = make_context(make_params())
    monkeypatch.setattr(type(ctx), "stop_requested", property(lambda _: object()))
    validate(ctx, make_params())
    assert ctx.of_type("audit") == []


# ---- vocabularies ----------------------------------------------------------------------------------------


def of_other_words(model: str, directory: Path) -> str:
    """The model with a tokenizer that has two tokens the other way round."""
    shutil.copytree(model, directory)
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    words = content["model"]["vocab"]
    one, other = (word for word, number in words.items() if number in {300, 301})
    words[one], words[other] = words[other], words[one]
    file.write_text(json.dumps(content), encoding="utf-8")
    return str(directory)


def test_a_teacher_of_another_vocabulary_is_refused_by_the_first_token_that_differs(
    validated: Validate, tiny_teacher: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="do not have the same vocabulary: token 300 is ") as caught:
        validated([row(0)], teacher=of_other_words(tiny_teacher, tmp_path / "other"))
    assert caught.value.code == "vocabulary_mismatch"
    assert "Take a teacher of the same family." in caught.value.message


# ---- scored rows -----------------------------------------------------------------------------------------


def scored(prompt: int = 4, completion: int = 6, *, top_k: int = 4, **changes: Any) -> dict[str, Any]:
    """A row with scores of a teacher, and without what ``changes`` has as ``None``."""
    values: dict[str, Any] = {
        "prompt_ids": list(range(10, 10 + prompt)),
        "completion_ids": list(range(30, 30 + completion)),
        "teacher_log_probs": [-1.0] * completion,
        "sampler_log_probs": [-1.5] * completion,
        "teacher_top_ids": [list(range(top_k))] * completion,
        "teacher_top_log_probs": [[-1.0 - at for at in range(top_k)]] * completion,
    } | changes
    return {name: value for name, value in values.items() if value is not None}


SCORED = {"precomputed_scores": True}
GRADIENT = {**SCORED, "objective": "policy_gradient"}


def test_scored_rows_are_counted_as_they_are_trained_on(validated: Validate, make_context: Any) -> None:
    # What max_completion_length says is of samples, and there are none.
    ctx = validated([scored(), scored(5, 80), scored(84, 8), scored(50, 60)], top_k=4, **SCORED)
    report = report_of(ctx)
    assert (report["format"], report["rows"], report["unanswered_rows"]) == ("scored", 4, 1)
    assert (report["truncated_rows"], report["tokens"]) == (0, 4 + 6 + 5 + 80 + 84 + 8 + 50 + 60)
    assert advice_of(ctx) == {"max_length": "1 of 4 rows are longer than max_length=96 and are left out."}

    from finetuned_opd.trainer import load_prompts
    from finetuned_training.chat import load_tokenizer

    params = OPDParams.model_validate(ctx.metadata["params"])
    left = load_prompts(ctx, "dataset", "train", params, load_tokenizer(params.model, params))
    assert [len(each["answer_ids"]) for each in left] == [6, 80, 8]


def test_scored_rows_that_are_all_too_long_end_the_job(validated: Validate) -> None:
    error = refused(validated, [scored(50, 60)], top_k=4, **SCORED)
    assert "row 1: it is longer than max_length. Raise max_length (96)." in error.message


@pytest.mark.parametrize(
    ("rows", "changes", "reason"),
    [
        ([scored(), scored(sampler_log_probs=None)], GRADIENT, "row 2: it has no sampler_log_probs"),
        (
            [scored(sampler_log_probs=None)],
            {**SCORED, "estimator": "k3"},
            "row 1: it has no sampler_log_probs",
        ),
        (
            [scored(teacher_top_ids=None, teacher_top_log_probs=None)],
            {**GRADIENT, "kl_weight": 0.5},
            "row 1: it has no teacher_top_ids",
        ),
        ([scored()], {**SCORED, "top_k": 8}, "row 1: it has 4 teacher_top_ids a token, and 8 are compared"),
        ([scored()], SCORED, "20 are compared (top_k). Set top_k=4, or score the rows again with more."),
        (
            [scored(teacher_top_ids=None, teacher_top_log_probs=None)],
            SCORED,
            "row 1: it has 0 teacher_top_ids a token, and 20 are compared (top_k). Score the rows again with more.",
        ),
        (
            [scored(), scored(completion_ids=[30, 31, 32, 33, 34, 100_000])],
            {**SCORED, "top_k": 4},
            "row 2: completion_ids[5] is 100000, and the vocabulary has ",
        ),
        ([scored(), scored(top_k=3)], {**SCORED, "top_k": 3}, "row 2: it has 3 likeliest tokens"),
        (
            [scored(teacher_log_probs=[-1.0] * 5 + [float("nan")])],
            GRADIENT,
            "row 1: teacher_log_probs[5] is nan, which is no log-probability",
        ),
        ([row(0)], GRADIENT, "row 1: prompt_ids is missing"),
    ],
)
def test_scores_that_the_loss_would_miss_are_named_with_their_row(
    validated: Validate, rows: list[dict[str, Any]], changes: dict[str, Any], reason: str
) -> None:
    assert reason in refused(validated, rows, **changes).message


def test_scored_rows_in_several_files_are_refused(
    make_params: MakeParams, make_context: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):
        write(folder / f"train-{number}.jsonl", [scored()])
    params = make_params(dataset=str(folder), **GRADIENT)
    with pytest.raises(JobError, match=r"is not one \.jsonl file; put the scored rows into one") as caught:
        validate(make_context(params), params)
    assert caught.value.code == "dataset_unsupported"


def test_validation_imports_no_torch() -> None:
    code = "import sys, finetuned_opd.validation, finetuned_opd.plugin; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
