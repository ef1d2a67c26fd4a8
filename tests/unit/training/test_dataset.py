from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetuned_sdk import JobError, RowProblem
from finetuned_training import dataset, json_stream
from finetuned_training.dataset import SourceRow

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"))
rows = st.lists(
    st.dictionaries(st.sampled_from(["prompt", "completion", "text"]), texts, min_size=1), max_size=6
)


def read(path: Path) -> list[tuple[int, dict[str, Any]]]:
    items = list(dataset.read_rows(str(path)))
    assert not [item for item in items if isinstance(item, RowProblem)]
    return [(item.number, dict(item.data)) for item in items if isinstance(item, SourceRow)]


def problems(path: Path) -> list[tuple[int, str]]:
    return [(item.row, item.reason) for item in dataset.read_rows(str(path)) if isinstance(item, RowProblem)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@given(rows)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_lines_come_back_with_their_line_numbers(folder: Path, content: list[dict[str, str]]) -> None:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n\n" for row in content), encoding="utf-8")
    assert read(path) == [(1 + 2 * index, row) for index, row in enumerate(content)]


@given(rows, st.sampled_from([None, 2]), st.integers(1, 40))
def test_json_arrays_come_back_in_whatever_pieces_they_are_read(
    folder: Path, content: list[dict[str, str]], indent: int | None, piece: int
) -> None:
    path = folder / "rows.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "READ_CHARS", piece)
        assert read(path) == list(enumerate(content, start=1))


@given(st.lists(st.tuples(texts, texts), max_size=6))
def test_csv_rows_come_back_with_the_line_they_begin_on(folder: Path, content: list[tuple[str, str]]) -> None:
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("prompt", "completion"), *content])
    found = read(path)
    assert [tuple(row.values()) for _, row in found] == content
    numbers = [number for number, _ in found]
    assert numbers[:1] == [2][: len(numbers)]
    assert numbers == sorted(set(numbers))


def test_a_csv_row_over_several_lines_counts_from_its_first(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion\n"one\ntwo",x\nthree,y\n')
    assert [number for number, _ in read(tmp_path / "a.csv")] == [2, 4]


def test_parquet_rows_come_back_without_their_nulls(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    content = [{"prompt": "a", "completion": "b"}, {"text": "c"}]
    table = pa.Table.from_pylist(
        content, pa.schema([(k, pa.string()) for k in ("prompt", "completion", "text")])
    )
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=1)
    assert read(tmp_path / "rows.parquet") == [(1, content[0]), (2, content[1])]


def test_a_broken_parquet_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(JobError, match="write it anew") as caught:
        read(tmp_path / "rows.parquet")
    assert caught.value.code == "dataset_unreadable"


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    for name, text in [("a.jsonl", '{"text": "x"}\n'), ("a.json", '[{"text": "x"}]'), ("a.csv", "text\nx\n")]:
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert [row for _, row in read(tmp_path / name)] == [{"text": "x"}]


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [{"text": "a"}, {"text": "b"}]}',
        '{"text": "a"}\n{"text": "b"}\n',
        '[{"text":"a"},{"text":"b"}]',
    ],
    ids=["one list in an object", "JSON Lines", "array"],
)
def test_json_files_may_be_built_in_three_ways(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read(tmp_path / "a.json") == [(1, {"text": "a"}), (2, {"text": "b"})]


def test_a_single_conversation_is_one_row_not_a_list_of_rows(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "q"}]}
    (tmp_path / "a.json").write_text(json.dumps(row))
    assert read(tmp_path / "a.json") == [(1, row)]


@pytest.mark.parametrize(
    ("name", "content", "row", "reason"),
    [
        (
            "a.jsonl",
            b'{"text": "x"}\n{"text": \n{"text": "y"}\n',
            2,
            "malformed JSON: Expecting value at column",
        ),
        ("a.jsonl", b'{"text": "x"}\n[1]\n', 2, "not a JSON object but list"),
        ("a.jsonl", b'{"text": "x"}\n\xff\xfe\n', 2, "not UTF-8 at byte 1 of the line"),
        ("a.jsonl", b"[" * 100_000, 1, "nested too deeply"),
        ("a.json", b'[{"text": "x"}, {"text": }]', 2, "malformed JSON: Expecting value"),
        ("a.json", b'[{"text": "x"} {"text": "y"}]', 2, "a comma or ] is missing"),
        ("a.json", b'[{"text": "x"}', 2, "the file ends before the array is closed"),
        ("a.json", b'[{"text": "x', 1, "malformed JSON: Unterminated string"),
        ("a.json", b'[{"text": "x"}] junk', 2, "text after the array"),
        ("a.json", b'[{"text": "x"}, 3]', 2, "not a JSON object but int"),
        ("a.json", b'[{"text": "\xff"}]', 1, "not UTF-8"),
        ("a.json", b"[" * 100_000, 1, "nested too deeply"),
        ("a.csv", b"prompt,completion\na,b\nc,d,e\n", 3, "more cells than the header"),
        ("a.csv", b'text\nx\n"open\n', 3, "malformed CSV"),
        ("a.csv", b"text\nx\n\xff\n", 2, "not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_row(
    tmp_path: Path, name: str, content: bytes, row: int, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    found = problems(tmp_path / name)
    assert [number for number, _ in found] == [row]
    assert reason in found[0][1]


def test_reading_goes_on_after_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{oops\n{"text": "y"}\n{oops\n')
    items = list(dataset.read_rows(str(tmp_path / "a.jsonl")))
    assert [isinstance(item, RowProblem) for item in items] == [False, True, False, True]


def test_a_large_json_array_is_not_held_as_a_whole(tmp_path: Path) -> None:
    import tracemalloc

    row = json.dumps({"text": "x" * 1000})
    (tmp_path / "a.json").write_text("[" + ",".join([row] * 20_000) + "]")  # 20 MB
    tracemalloc.start()
    try:
        assert sum(1 for _ in dataset.read_rows(str(tmp_path / "a.json"))) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_one_element_larger_than_the_buffer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "READ_CHARS", 16)
    value = {"text": "é" * 10_000}
    assert list(json_stream.values(io.StringIO(json.dumps([value, value])))) == [value, value]


def test_a_folder_is_read_in_name_order_and_problems_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": "2"}\n{oops\n')
    (tmp_path / "a.csv").write_text("text\n1\n")
    (tmp_path / "notes.md").write_text("no rows")
    items = list(dataset.read_rows(str(tmp_path)))
    assert [item.data["text"] for item in items if isinstance(item, SourceRow)] == ["1", "2"]
    assert isinstance(items[-1], RowProblem)
    assert (items[-1].row, items[-1].reason[:9]) == (2, "b.jsonl: ")


def test_the_test_rows_of_a_folder_are_not_trained_on(tmp_path: Path) -> None:
    for name in ("train-1.jsonl", "train-2.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": name}))
    assert [path.name for path in dataset.files(str(tmp_path))] == ["train-1.jsonl", "train-2.jsonl"]
    assert [path.name for path in dataset.files(str(tmp_path), "test")] == ["test.jsonl"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("/nowhere/rows.jsonl", "dataset_not_found"),
        ("rows.jsonl", "dataset_not_found"),
        ("not a dataset", "dataset_not_found"),
        ("{folder}/rows.txt", "dataset_unsupported"),
        ("{folder}/empty", "dataset_not_found"),
    ],
)
def test_a_dataset_that_is_not_there_is_an_error_that_says_so(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "rows.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError) as caught:
        dataset.files(name.format(folder=tmp_path))
    assert caught.value.code == code


def test_an_owner_and_a_name_are_a_hub_id() -> None:
    assert dataset.files("trl-lib/Capybara") == ()
    assert dataset.sha256("trl-lib/Capybara") is None


def test_the_hash_of_a_file_is_that_of_its_bytes_and_of_a_folder_of_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n')
    alone = dataset.sha256(str(tmp_path / "a.jsonl"))
    assert alone == hashlib.sha256(b'{"text": "x"}\n').hexdigest()
    assert dataset.sha256(str(tmp_path)) == alone
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "y"}\n')
    both = dataset.sha256(str(tmp_path))
    (tmp_path / "b.jsonl").rename(tmp_path / "c.jsonl")
    assert dataset.sha256(str(tmp_path)) != both
