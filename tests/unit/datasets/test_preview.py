from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetuned.datasets import preview, rows
from finetuned.domain.errors import InvalidRequestError, Rejected

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3), max_size=12)
PAGED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def paged(path: Path, written: str, limit: int) -> list[Any]:
    """All rows, page by page; none of them has a problem."""
    found: list[Any] = []
    after: str | None = None
    while True:
        page = preview.read(path, written, limit=limit, after=after)
        assert len(page.rows) <= limit
        assert [row.problem for row in page.rows] == [None] * len(page.rows)
        found += [row.value for row in page.rows]
        if page.after is None:
            return found
        after = page.after


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "rows"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@PAGED
@given(ROWS, st.integers(1, 5), st.sampled_from(["", "\n", "\r\n\n"]))
def test_pages_of_json_lines_together_are_its_rows(
    tmp_path: Path, values: list[Any], limit: int, blank: str
) -> None:
    text = "".join(blank + json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    assert paged(write(tmp_path, text), "jsonl", limit) == values


@PAGED
@given(ROWS, st.integers(1, 5), st.sampled_from([None, 1]), st.booleans())
def test_pages_of_a_json_array_together_are_its_rows(
    tmp_path: Path, values: list[Any], limit: int, indent: int | None, wrapped: bool
) -> None:
    whole = {"rows": values} if wrapped and values and "role" not in values[0] else values
    path = write(tmp_path, "\ufeff " + json.dumps(whole, ensure_ascii=False, indent=indent))
    assert paged(path, "json", limit) == values


@PAGED
@given(
    st.lists(st.tuples(st.text(alphabet='a,"\n é'), st.text(alphabet='b,"\n')), min_size=1),
    st.integers(1, 5),
)
def test_pages_of_csv_together_are_its_records(
    tmp_path: Path, records: list[tuple[str, str]], limit: int
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("prompt", "completion"), *records])
    expected = [{"prompt": prompt, "completion": completion} for prompt, completion in records]
    assert paged(write(tmp_path, text.getvalue()), "csv", limit) == expected


def test_rows_are_numbered_as_an_audit_numbers_them(tmp_path: Path) -> None:
    path = write(tmp_path, '{"a": 1}\n\n{"a": 2}\n')
    assert [row.number for row in preview.read(path, "jsonl", limit=9).rows] == [1, 3]
    path = write(tmp_path, 'a\n"1\n1"\n2\n')
    assert [row.number for row in preview.read(path, "csv", limit=9).rows] == [2, 4]
    path = write(tmp_path, '[{"a": 1},\n {"a": 2}]')
    assert [row.number for row in preview.read(path, "json", limit=9).rows] == [1, 2]


def test_a_conversation_is_a_row_and_no_wrapper_of_rows(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}]}
    assert paged(write(tmp_path, json.dumps(row)), "json", 5) == [row]


@pytest.mark.parametrize(
    ("written", "content", "problems"),
    [
        ("jsonl", b'{"a": \n{"a": 1}\n{"a": "\xe9"}\n', ["malformed JSON", None, "not UTF-8 at byte 8"]),
        ("jsonl", b'{"a": ' + b"[" * 200_000 + b"\n{}\n", ["nested too deeply", None]),
        ("jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", ["a number of thousands of digits"]),
        ("json", b'[{"a": 1}, {"a": }, {"a": 2}]', [None, "malformed JSON"]),
        ("json", b'[{"a": 1}, {"a": "cut', [None, "in the middle of this row"]),
        ("json", b'["\\', ["in the middle of this row"]),
        ("csv", b'a,b\n1,2,3\n4,5\n"6', ["more cells", None, "malformed CSV"]),
        ("csv", b"a\n\xe9\nb\n", ["not UTF-8"]),
    ],
)
def test_what_cannot_be_read_stands_in_its_place(
    tmp_path: Path, written: str, content: bytes, problems: list[str | None]
) -> None:
    page = preview.read(write(tmp_path, content), written, limit=9)
    assert page.after is None
    for row, problem in zip(page.rows, problems, strict=True):
        if problem is None:
            assert row.problem is None
        else:
            assert row.problem is not None
            assert problem in row.problem


@pytest.mark.parametrize("written", ["jsonl", "json"])
def test_a_row_of_megabytes_is_passed_over_and_the_next_one_shown(tmp_path: Path, written: str) -> None:
    values = [{"a": 1}, {"a": 'x\\"[' * (rows.LONGEST_ROW // 3)}, {"a": 2}]
    text = json.dumps(values) if written == "json" else "".join(json.dumps(v) + "\n" for v in values)
    first, huge, last = preview.read(write(tmp_path, text), written, limit=9).rows
    assert (first.value, last.value) == ({"a": 1}, {"a": 2})
    assert huge.value is None
    assert huge.problem == "longer than 1 MiB, so it is not shown"


def test_a_row_that_hardly_ends_is_the_last_that_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    for written, begin in (("jsonl", b'{"a": "'), ("json", b'["')):
        with path.open("wb") as file:
            file.write(begin)
            file.truncate(4 * rows.LONGEST_SKIP)  # a sparse file: a string of zeros
        page = preview.read(path, written, limit=9)
        assert len(page.rows) == 1
        assert page.after is None


def test_long_values_are_cut_and_the_answer_can_always_be_encoded(tmp_path: Path) -> None:
    value = {
        "text": "é" * 5000,
        "list": list(range(500)),
        "deep": json.loads("[" * 50 + "]" * 50),
        "lone": "\ud800",
        "huge": 10**30,
        "nan": float("nan"),
        "short": "as it is",
    }
    path = write(tmp_path, json.dumps(value) + "\n" + json.dumps({"short": 1}) + "\n")
    row, untouched = preview.read(path, "jsonl", limit=9).rows
    assert row.cut
    assert row.value["text"] == "é" * preview.LONGEST_TEXT + "…"
    assert row.value["list"] == list(range(preview.MOST_ITEMS))
    assert row.value["short"] == "as it is"
    assert len(orjson.dumps(row.value)) < 10_000
    assert not untouched.cut


def test_a_page_of_large_rows_is_short_and_goes_on(tmp_path: Path) -> None:
    row = json.dumps({"text": "x" * (rows.LONGEST_ROW - 100)}) + "\n"
    path = write(tmp_path, row * 20)
    page = preview.read(path, "jsonl", limit=20)
    assert len(page.rows) < 20
    assert page.after is not None
    assert preview.read(path, "jsonl", limit=20, after=page.after).rows[0].number == len(page.rows) + 1


def test_parquet_is_left_to_an_audit(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="audit the dataset") as caught:
        preview.read(write(tmp_path, "PAR1"), "parquet", limit=1)
    assert caught.value.stable_code == "preview_unsupported"


@pytest.mark.parametrize("after", ["x", "1", "-1:0", "1:1" * 20])
def test_a_position_that_is_none_is_refused(tmp_path: Path, after: str) -> None:
    with pytest.raises(InvalidRequestError, match="next_after") as caught:
        preview.read(write(tmp_path, "{}\n"), "jsonl", limit=1, after=after)
    assert caught.value.param == "after"


def test_a_file_that_has_changed_since_it_was_registered_is_not_shown_as_that_version(tmp_path: Path) -> None:
    path = write(tmp_path, "{}\n")
    assert preview.read(path, "jsonl", limit=1, size=3).rows
    with pytest.raises(Rejected, match="register it again") as caught:
        preview.read(path, "jsonl", limit=1, size=4)
    assert caught.value.stable_code == "dataset_changed"


def test_a_file_that_is_gone_or_a_pipe_by_now_is_refused_and_nothing_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "gone"):
        with pytest.raises(Rejected, match="register it again") as caught:
            preview.read(tmp_path / name, "jsonl", limit=1)
        assert caught.value.stable_code == "dataset_unreadable"


class Gone(Exception):
    """Whoever asked has gone."""


def calls_of(work: Callable[[], object]) -> int:
    """How many functions written in C or Python the work calls."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_strings_of_a_row_that_is_passed_over_are_not_looked_at_one_by_one(tmp_path: Path) -> None:
    path = write(tmp_path, b'[["' + b'","' * (1 << 20) + b'"], {"a": 1}]')
    work = partial(preview.read, path, "json", limit=9)
    assert [row.problem for row in work().rows] == [rows.TOO_LONG, None]
    assert calls_of(work) < 5000


@pytest.mark.parametrize("content", [b"[" * 3, b"[]," * 3, b'[["a"],' * 3])
def test_brackets_without_an_end_are_looked_at_for_a_bounded_number_of_steps(
    tmp_path: Path, content: bytes
) -> None:
    path = write(tmp_path, b"[[" + content * (4 << 20))
    read = 0

    def check() -> None:
        nonlocal read
        read += 1

    (row,) = preview.read(path, "json", limit=9, check=check).rows
    assert row.problem == f"{rows.TOO_LONG}, nor is what follows"
    assert read <= rows.LONGEST_SKIP // rows.BLOCK // 2


@pytest.mark.parametrize(
    ("written", "content"),
    [
        ("json", b'[["' + b'","' * (4 << 20)),
        ("json", b"[" + b" " * (12 << 20) + b"1]"),
        ("jsonl", b"\n" * (4 << 20)),
        ("csv", b"a\n" + b"\n" * (4 << 20)),
        ("csv", b'a\n"' + b"\n" * (4 << 20)),
    ],
)
def test_a_page_reads_a_bounded_piece_and_stops_once_nobody_waits_for_it(
    tmp_path: Path, written: str, content: bytes
) -> None:
    path = write(tmp_path, content)
    read = 0

    def check() -> None:
        nonlocal read
        read += 1
        if read > limit:
            raise Gone

    limit = 2 << 20
    preview.read(path, written, limit=1, check=check)
    assert read < limit
    read, limit = 0, 3
    with pytest.raises(Gone):
        preview.read(path, written, limit=1, check=check)
    assert read == limit + 1


@pytest.mark.parametrize("written", ["jsonl", "csv", "json"])
def test_rows_behind_much_that_is_blank_are_found_page_by_page(tmp_path: Path, written: str) -> None:
    blank = b" " * (9 << 20) if written == "json" else b"\n" * 300_000
    begin, row, end = {
        "jsonl": (b"", b'{"a": "x"}\n', b""),
        "csv": (b"a\n", b"x\n", b""),
        "json": (b"[", b'{"a": "x"}', b"]"),
    }[written]
    path = write(tmp_path, begin + blank + row + blank + end)
    assert preview.read(path, written, limit=5).rows == []
    assert paged(path, written, 5) == [{"a": "x"}]


def test_a_record_of_many_lines_is_bounded_as_a_whole(tmp_path: Path) -> None:
    record = b'"ab\n' + b'cd","ab\n' * (rows.LONGEST_ROW // 4)
    read = 0

    def check() -> None:
        nonlocal read
        read += 1

    for content in (b"text,b\n1,2\n" + record, record):
        read = 0
        path = write(tmp_path, content)
        last = preview.read(path, "csv", limit=9, check=check).rows[-1]
        assert last.problem == "malformed CSV: a record of more than 1 MiB"
        assert read <= rows.LONGEST_ROW // len(b'cd","ab\n') + 5


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b'a,"b"c,d', "malformed CSV: "),
        (b'a,"b', "malformed CSV: "),
        (b"x" * (rows.LONGEST_ROW + 2), "malformed CSV: a record of more than 1 MiB"),
        (b"a,\xe9", "not UTF-8"),
    ],
)
def test_a_header_that_cannot_be_read_is_told_and_nothing_is_shown_below_it(
    tmp_path: Path, header: bytes, problem: str
) -> None:
    page = preview.read(write(tmp_path, header + b"\n1,2,3\n"), "csv", limit=9)
    (row,) = page.rows
    assert (row.number, row.value, page.after) == (1, None, None)
    assert (row.problem or "").startswith(problem)


def test_rows_below_a_header_of_very_many_columns_come_a_few_a_page(tmp_path: Path) -> None:
    path = write(tmp_path, b"a," * (rows.LONGEST_ROW // 2 - 1) + b"a\n" + b"1\n" * 50)
    assert len(preview.read(path, "csv", limit=50).rows) < 5
