from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuned_callbacks import rows
from finetuned_sdk import BadDatasetError, JobError

USER = {"role": "user", "content": "2 buns"}
ANSWER = {"role": "assistant", "content": "{}"}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "2 buns", "completion": "{}"}, "2 buns"),
        ({"prompt": [USER], "completion": [ANSWER]}, (USER,)),
        ({"prompt": [USER], "completion": "{}"}, (USER,)),
        ({"messages": [USER, ANSWER]}, (USER,)),
    ],
)
def test_a_row_is_read_from_every_form(row: dict[str, Any], prompt: object) -> None:
    parsed = rows.parse(row)
    assert (parsed.prompt, parsed.expected, parsed.question()) == (prompt, "{}", "2 buns")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "is no JSON object"),
        ('{"prompt": "x"}', "neither"),
        ('{"prompt": "x", "completion": 3}', "neither text nor messages"),
        ('{"prompt": [], "completion": "x"}', "is not a list of messages"),
        ('{"prompt": "x", "completion": [{"role": "user", "content": "y"}]}', "one assistant message"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "does not end with an assistant message"),
        ('{"messages": [{"role": "user"}]}', "role"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n\n' + line + "\n")
    with pytest.raises(BadDatasetError, match=reason) as caught:
        rows.load(str(file))
    assert [problem.row for problem in caught.value.problems] == [3]


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text("".join(f'{{"prompt": "{n}", "completion": "x"}}\n' for n in range(5)))
    assert [row.prompt for row in rows.load(str(file), limit=2)] == ["0", "1"]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text("\n")
    with pytest.raises(BadDatasetError, match="no rows"):
        rows.load(str(tmp_path / "held.jsonl"))


def test_a_missing_file_is_refused_with_the_parameter_to_correct(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"callbacks\.validation\.dataset"):
        rows.load(str(tmp_path / "none.jsonl"))
