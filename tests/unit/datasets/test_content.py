from __future__ import annotations

import csv
import hashlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.datasets.content import HEAD, Format, Inspected, Inspection
from finetuned.domain.errors import InvalidRequestError

PARQUET = b"PAR1" + bytes(range(256)) + b"PAR1"


def inspect(data: bytes, declared: Format | None = None, step: int = 1 << 20) -> Inspected:
    inspection = Inspection(declared)
    for start in range(0, len(data), step):
        inspection.feed(data[start : start + step])
    return inspection.finish()


def refusal(data: bytes, declared: Format | None = None) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        inspect(data, declared)
    return caught.value


@pytest.mark.parametrize(
    ("data", "found", "rows"),
    [
        (b'{"a": 1}\n{"a": 2}\n', "jsonl", 2),
        (b'{"a": 1}', "jsonl", 1),
        (b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n', "jsonl", 2),
        (b'{"text": "' + b"x" * HEAD + b'"}\n{"text": ""}\n', "jsonl", 2),
        (b'[{"a": 1}]', "json", None),
        (b'{\n  "rows": []\n}', "json", None),
        (b'{"data": [{"prompt": "a", "completion": "b"}]}', "json", None),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n', "jsonl", 1),
        (b"prompt,completion\na,b\nc,d", "csv", 2),
        (b'prompt,completion\n"a\nb ""c""",d\n\ne,f\n', "csv", 2),
        (b"text\nhello\n", "csv", 1),
        (PARQUET, "parquet", None),
    ],
)
def test_the_format_is_told_by_the_content_and_rows_are_counted_where_a_line_is_one(
    data: bytes, found: Format, rows: int | None
) -> None:
    for step in (1 << 20, 7, 1):
        assert inspect(data, step=step) == Inspected(
            sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), format=found, rows=rows
        )


@pytest.mark.parametrize(
    ("data", "declared", "code", "remedy"),
    [
        (b"", None, "dataset_empty", "send one that has"),
        (b" \n\n", "jsonl", "dataset_empty", "send one that has"),
        (b"a,b\n", None, "dataset_empty", "send one that has"),
        (b"", "parquet", "dataset_empty", "send one that has"),
        (b"\xff\xfe{\x00", None, "dataset_not_utf8", "save it as UTF-8"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', None, "dataset_not_utf8", "line 2 (byte 17)"),
        (b'[{"a": "\xc3', None, "dataset_not_utf8", "byte 9"),
        (b"hello\nworld\n", None, "dataset_format_unknown", "format=jsonl|json|csv|parquet"),
        (b"PAR1 and then nothing", None, "dataset_format_mismatch", "cut short"),
        (b"a,b\n1,2\n", "jsonl", "dataset_format_mismatch", "begins with 'a,b"),
        (PARQUET, "csv", "dataset_format_mismatch", "Name the right format"),
        (b'[{"a": 1}]', "jsonl", "dataset_format_mismatch", "begins with '[{"),
    ],
)
def test_what_cannot_be_a_dataset_is_refused_with_the_remedy(
    data: bytes, declared: Format | None, code: str, remedy: str
) -> None:
    error = refusal(data, declared)
    assert error.stable_code == code
    assert remedy in error.message


def test_a_byte_that_is_not_utf8_is_found_beyond_the_head_and_across_blocks() -> None:
    rows = b'{"a": "\xc3\xa9"}\n' * 40_000
    data = rows + b'{"a": "\xc3("}\n'
    for step in (1 << 20, 4097):
        with pytest.raises(InvalidRequestError, match="line 40001 "):
            inspect(data, step=step)


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]))), st.integers(1, 50))
def test_rows_of_json_lines_are_counted_however_the_bytes_are_cut(texts: list[str], step: int) -> None:
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in ["", *texts]).encode()
    assert inspect(data, "jsonl", step).rows == len(texts) + 1


@given(st.lists(st.sampled_from(["", " ", "\r", "\t \r", "\x0b", "{}", " {}", "{}\r"])), st.integers(1, 9))
def test_blank_lines_are_no_rows(lines: list[str], step: int) -> None:
    data = "\n".join(["{}", *lines]).encode()
    assert inspect(data, "jsonl", step).rows == 1 + sum(bool(line.strip()) for line in lines)


@given(
    st.lists(st.tuples(st.text(alphabet='a,"\n é'), st.text(alphabet='b,"\n')), min_size=1),
    st.integers(1, 50),
)
def test_rows_of_csv_are_counted_as_pythons_reader_counts_them(
    rows: list[tuple[str, str]], step: int
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("prompt", "completion"), *rows])
    assert inspect(text.getvalue().encode(), "csv", step).rows == len(rows)
