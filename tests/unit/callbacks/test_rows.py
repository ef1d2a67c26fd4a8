from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from finetuned_callbacks import plugin, rows
from finetuned_callbacks.params import TrackerParams, ValidationParams
from finetuned_sdk import BadDatasetError, Host, JobError, Registry

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
        ("[" * 100_000, "is not JSON"),
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


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(JobError, match="it is no file"):
            rows.load(str(tmp_path / name))


def test_reading_ends_at_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n' * 2 + "{\n")
    assert len(rows.load(str(file), limit=2)) == 2


@pytest.mark.parametrize(("read_at_most", "count"), [(34, 0), (35, 1), (36, 1), (69, 1), (70, 2), (1000, 2)])
def test_no_more_is_read_than_asked_for(tmp_path: Path, read_at_most: int, count: int) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n' * 2)  # 35 bytes each
    assert len(rows.load(str(file), read_at_most=read_at_most)) == count


def test_the_daemon_reads_the_first_megabytes_and_leaves_the_rest_to_the_worker(tmp_path: Path) -> None:
    file = tmp_path / "held.jsonl"
    row = '{"prompt": "a", "completion": "%s"}\n' % ("b" * 1000)
    file.write_text(row * (plugin.CHECKED_BYTES // len(row) + 1) + "{\n")
    params = ValidationParams(dataset=str(file))
    plugin.check_validation(params, Host())
    with pytest.raises(BadDatasetError, match="is not JSON"):
        rows.load(params.dataset)
    file.write_text("{\n" + row)
    with pytest.raises(BadDatasetError, match="row 1: is not JSON"):
        plugin.check_validation(params, Host())


def test_a_tracker_that_is_not_installed_is_refused_at_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    register = Registry()
    plugin.finetuned_register(register)
    check = register.callbacks["tracker"].check
    assert check is not None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(JobError, match="pip install mlflow") as caught:
        check(TrackerParams(report_to="mlflow"), Host())
    assert caught.value.code == "missing_package"
