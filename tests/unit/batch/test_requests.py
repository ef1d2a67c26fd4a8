"""The input of a batch is read through before anything is asked, and each bad line is named."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests.unit.batch.inputs import MODEL, URL, limits, line, written

from finetuned_batch import requests
from finetuned_batch.requests import UnreadableInputError


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


def problems(path: Path, **changes: Any) -> list[tuple[int | None, str]]:
    return [(each.line, each.code) for each in requests.read(path, limits(**changes)).problems]


def test_a_well_formed_file_has_a_row_for_each_request(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line("a"), "", line("b")])
    found = requests.read(path, limits())
    assert not found.problems
    assert list(requests.custom_ids(found)) == ["a", "b"]


def test_a_line_of_many_lists_is_not_deep_for_that(tmp_path: Path) -> None:
    wide = line("x", body={"model": MODEL, "wide": [[[]]] * 100, "deep": nested(76)})
    path = written(tmp_path / "in.jsonl", [wide])
    assert not requests.read(path, limits()).problems


def test_a_byte_order_mark_and_a_missing_last_newline_are_no_problem(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line("ä"), line("b")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip(b"\n"))
    assert list(requests.custom_ids(requests.read(path, limits()))) == ["ä", "b"]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("{", "invalid_json_line"),
        ("[1]", "invalid_json_line"),
        ('{"custom_id": NaN}', "invalid_json_line"),
        ("[" * 100_000, "invalid_json_line"),
        (line("x", body={"model": MODEL, "deep": nested(90)}), "invalid_json_line"),
        (b"\xff\xfe", "invalid_json_line"),
        ({"custom_id": "x", "method": "POST", "url": URL}, "missing_required_parameter"),
        (line("x", priority=1), "unknown_parameter"),
        (line(""), "invalid_custom_id"),
        (line("x" * 513), "invalid_custom_id"),
        ({**line("x"), "custom_id": 7}, "invalid_custom_id"),
        (line("\ud800"), "invalid_custom_id"),
        (line("x", method="GET"), "invalid_method"),
        (line("x", url="/v1/completions"), "invalid_url"),
        (line("x", body=[]), "invalid_body"),
        (line("x", body={"model": "other"}), "mismatched_model"),
        (line("x", body={}), "mismatched_model"),
        (line("a"), "duplicate_custom_id"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, bad: object, code: str) -> None:
    path = written(tmp_path / "in.jsonl", [line("a"), bad, line("b")])
    found = requests.read(path, limits())
    assert [(each.line, each.code) for each in found.problems] == [(2, code)]
    assert found.total_problems == 1


def test_a_message_says_what_stands_there_and_what_should(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line("a", body={"model": "other"})])
    (problem,) = requests.read(path, limits()).problems
    assert problem.message == f'body.model is "other"; all requests of this batch ask {MODEL!r}'
    assert problem.param == "body.model"


def test_more_requests_or_bytes_than_allowed_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line("a"), line("b"), line("c")])
    assert problems(path, max_requests=2) == [(None, "too_many_requests")]
    assert problems(path, max_bytes=10) == [(None, "file_too_large")]


def test_a_file_without_a_request_is_refused(tmp_path: Path) -> None:
    assert problems(written(tmp_path / "in.jsonl", [""])) == [(None, "empty_file")]


def test_all_problems_are_counted_and_the_first_hundred_kept(tmp_path: Path) -> None:
    found = requests.read(written(tmp_path / "in.jsonl", ["{"] * 150), limits())
    assert found.total_problems == 150
    assert len(found.problems) == 100


def test_a_line_that_is_too_long_is_named_and_those_after_it_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LONGEST_LINE", 500)
    path = written(tmp_path / "in.jsonl", [line("a"), line("long", "x" * 2000), line("b")])
    found = requests.read(path, limits())
    assert [(each.line, each.code) for each in found.problems] == [(2, "line_too_long")]
    assert list(requests.custom_ids(found)) == ["a", "b"]


def test_memory_does_not_grow_with_the_length_of_requests(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line(f"row-{number}", "x" * 100_000) for number in range(100)])
    tracemalloc.start()
    try:
        requests.read(path, limits(max_bytes=1 << 30))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # of ten million
    finally:
        tracemalloc.stop()


def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="upload it again") as raised:
        requests.read(tmp_path / "none", limits())
    assert raised.value.code == "input_unreadable"
