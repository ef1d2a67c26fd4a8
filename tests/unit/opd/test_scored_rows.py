"""Scores that come with the data: what is wrong is told with its row, what is right is found by its tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuned_opd import scored_rows
from finetuned_opd.scored_rows import ScoredRow
from finetuned_opd.scores import Row, Wanted
from finetuned_sdk import JobError
from finetuned_sdk.errors import BadDatasetError

GOOD: dict[str, Any] = {
    "prompt_ids": [1, 2],
    "completion_ids": [3, 4],
    "teacher_log_probs": [-0.5, -1.5],
    "sampler_log_probs": [-0.25, -2.0],
    "teacher_top_ids": [[3, 9], [8, 4]],
    "teacher_top_log_probs": [[-0.5, -2.0], [-1.0, -1.5]],
}


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8"
    )
    return path


def without(*names: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**GOOD, **changes}.items() if name not in names}


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [scored_rows.parse(GOOD), scored_rows.parse({**GOOD, "prompt_ids": [7]})]
    file = tmp_path / "scores.jsonl"
    file.write_text("".join(map(scored_rows.line, rows)))
    assert list(scored_rows.read(str(file), vocab_size=10)) == rows
    bare = without("sampler_log_probs", "teacher_top_ids", "teacher_top_log_probs")
    assert scored_rows.parse(bare) == ScoredRow(Row((1, 2), (3, 4)), (-0.5, -1.5))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (without("prompt_ids"), "prompt_ids is missing"),
        (without(completion_ids=[]), "completion_ids is missing, empty"),
        (without(completion_ids=[3, 10]), r"completion_ids\[1\] is 10, and the vocabulary has 10 tokens"),
        (without(prompt_ids=[1, -2]), r"prompt_ids\[1\] is -2, which is no token id"),
        (without(prompt_ids=[True]), r"prompt_ids\[0\] is True"),
        (without("teacher_log_probs"), "teacher_log_probs is missing"),
        (without(teacher_log_probs=[-1.0]), "teacher_log_probs has 1 entries where there are 2 tokens"),
        (
            without(teacher_log_probs=[-1.0, float("nan")]),
            r"teacher_log_probs\[1\] is nan, which is no log-probability",
        ),
        (without(teacher_log_probs=[-1.0, float("-inf")]), r"teacher_log_probs\[1\] is -inf"),
        (without(teacher_log_probs=[-1.0, 0.5]), r"teacher_log_probs\[1\] is 0.5"),
        (without(teacher_log_probs=[-1.0, None]), r"teacher_log_probs\[1\] is None"),
        (without(sampler_log_probs=[-1.0]), "sampler_log_probs has 1 entries"),
        (without("teacher_top_ids"), "teacher_top_ids is not a list"),
        (without(teacher_top_ids=[[3, 9]]), "teacher_top_ids is not a list of one list for each of 2 tokens"),
        (without(teacher_top_ids=[[3, 9], [8]]), r"teacher_top_ids\[1\] has 1 tokens, the first 2"),
        (without(teacher_top_ids=[[3, 3], [8, 4]]), r"teacher_top_ids\[0\] has a token twice"),
        (
            without(teacher_top_log_probs=[[-2.0, -0.5], [-1.0, -1.5]]),
            r"teacher_top_ids\[0\] has .* not the likeliest first",
        ),
        (
            without("teacher_top_ids", "teacher_top_log_probs"),
            "it has 0 likeliest tokens, the rows before it 2",
        ),
        ("{", "malformed JSON"),
    ],
)
def test_a_row_that_is_wrong_is_named_with_the_reason(tmp_path: Path, row: Any, reason: str) -> None:
    file = write(tmp_path / "scores.jsonl", GOOD, row, GOOD)
    with pytest.raises(BadDatasetError, match=f"row 2: {reason}") as caught:
        list(scored_rows.read(str(file), vocab_size=10))
    assert caught.value.total == 1


def test_all_wrong_rows_are_counted_and_the_first_hundred_named(tmp_path: Path) -> None:
    file = write(tmp_path / "scores.jsonl", GOOD, *[without("prompt_ids")] * 150)
    with pytest.raises(BadDatasetError) as caught:
        list(scored_rows.read(str(file)))
    assert (caught.value.total, len(caught.value.problems)) == (150, 100)


@pytest.mark.torch
def test_a_row_is_found_by_its_tokens_and_cut_to_what_is_wanted(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from finetuned_opd.precomputed_teacher import PrecomputedTeacher

    other = without(
        prompt_ids=[1], completion_ids=[2, 3], teacher_log_probs=[-3.0, -4.0]
    )  # the same tokens, cut elsewhere
    teacher = PrecomputedTeacher(write(tmp_path / "scores.jsonl", GOOD, "", other))
    first, second = Row((1, 2), (3, 4)), Row((1,), (2, 3))
    one, two = teacher.score([second, first], Wanted())
    assert (one.log_probs.tolist(), two.log_probs.tolist()) == ([-3.0, -4.0], [-0.5, -1.5])
    (cut,) = teacher.score([first], Wanted(tokens=1, top_k=1))
    assert cut.top_ids is not None
    assert (cut.log_probs.tolist(), cut.top_ids.tolist()) == ([-0.5], [[3]])
    teacher.close()


@pytest.mark.torch
def test_what_was_not_scored_cannot_be_had(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from finetuned_opd.precomputed_teacher import PrecomputedTeacher

    teacher = PrecomputedTeacher(write(tmp_path / "scores.jsonl", GOOD))
    row = Row((1, 2), (3, 4))
    with pytest.raises(JobError, match="top_k is 3"):
        teacher.score([row], Wanted(top_k=3))
    with pytest.raises(JobError, match="no whole distributions"):
        teacher.score([row], Wanted(hidden=True))
    with pytest.raises(JobError, match="the student's own samples are others") as caught:
        teacher.score([Row((1, 2), (3, 5))], Wanted())
    assert caught.value.code == "teacher_unfit"
    write(tmp_path / "scores.jsonl", "not what was there before")
    with pytest.raises(JobError, match="not as it should be"):
        teacher.score([row], Wanted())
    teacher.close()
