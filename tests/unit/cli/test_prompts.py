"""Prompts of a file become the requests of a batch."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from finetuned.cli import prompts
from finetuned.cli.prompts import CHAT, Asking, RowError
from finetuned.domain.errors import InvalidRequestError

OWN = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "theirs", "messages": []}}
CITY = "Where is {city}?"


def made(path: Path, **asking: Any) -> list[dict[str, Any]]:
    return list(prompts.requests(path, Asking(**{"endpoint": CHAT, "model": "m", **asking})))


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_requests_in_openais_form_stay_as_they_are_but_for_what_is_said(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", OWN)
    assert made(path, model=None) == [OWN]
    (changed,) = made(path, params={"max_tokens": 5})
    assert changed["body"] == {"model": "m", "messages": [], "max_tokens": 5}


def test_messages_and_prompts_become_chats(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", {"messages": asked("one")}, {"prompt": "two", "id": 7})
    first, second = made(path, system="Be brief.")
    system = {"role": "system", "content": "Be brief."}
    assert first == {
        "custom_id": "row-1",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "m", "messages": [system, *asked("one")]},
    }
    assert second["custom_id"] == "7"
    assert second["body"]["messages"] == [system, *asked("two")]


@pytest.mark.parametrize(("endpoint", "field"), [("/v1/completions", "prompt"), ("/v1/embeddings", "input")])
def test_other_endpoints_have_the_prompt_where_it_belongs(tmp_path: Path, endpoint: str, field: str) -> None:
    (request,) = made(lines(tmp_path / "in.jsonl", {"prompt": "hello"}), endpoint=endpoint)
    assert request["url"] == endpoint
    assert request["body"] == {"model": "m", field: "hello"}


@pytest.mark.parametrize(("name", "delimiter"), [("in.csv", ","), ("in.TSV", "\t")])
def test_a_template_puts_the_columns_of_a_csv_into_the_prompt(
    tmp_path: Path, name: str, delimiter: str
) -> None:
    path = tmp_path / name
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows([["id", "city"], ["k1", "Köln"], ["k2", "a,\nb"]])
    found = made(path, template=CITY)
    assert [each["custom_id"] for each in found] == ["k1", "k2"]
    assert [each["body"]["messages"] for each in found] == [asked("Where is Köln?"), asked("Where is a,\nb?")]


@pytest.mark.torch
def test_a_template_puts_the_columns_of_a_parquet_file_into_the_prompt(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"city": ["Rome", "Oslo"], "n": [1, 2]}), path)
    assert [each["body"]["messages"] for each in made(path, template="{n} {city}")] == [
        asked("1 Rome"),
        asked("2 Oslo"),
    ]


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{a} and {a}", {"a": "x"}, "x and x"),
        ("{{a}} {a}", {"a": "{b}"}, "{a} {b}"),
        ("{a}", {"a": [1, "ü"]}, '[1, "ü"]'),
        ("{ a}", {" a": "x"}, "x"),
    ],
)
def test_a_template_takes_columns_and_nothing_else(
    template: str, row: Mapping[str, object], text: str
) -> None:
    assert prompts.filled(template, row) == text


@pytest.mark.parametrize("template", ["{a", "a}", "{b}", "{a.__class__}"])
def test_a_template_that_cannot_be_filled_is_refused(template: str) -> None:
    with pytest.raises(RowError):
        prompts.filled(template, {"a": "x"})


@pytest.mark.parametrize(
    ("rows", "asking", "told"),
    [
        ([{"text": "x"}], {}, "row 1: it has neither `messages` nor `prompt`"),
        ([{"prompt": "x"}], {"model": None}, "row 1: it names no model"),
        ([{"prompt": "x"}, {"city": 1}], {"template": "{prompt}"}, "row 2: there is no column 'prompt'"),
        ([{**OWN, "body": []}], {}, "row 1: its body is no JSON object"),
        (["text"], {}, "line 1: it is no JSON object"),
    ],
)
def test_a_row_from_which_no_request_can_be_made_is_named(
    tmp_path: Path, rows: list[object], asking: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        made(lines(tmp_path / "in.jsonl", *rows), **asking)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl")
    with pytest.raises(InvalidRequestError, match="nothing to ask"):
        prompts.write(path, Asking(endpoint=CHAT, model="m"), tmp_path / "out")


@pytest.mark.torch
def test_what_is_no_parquet_or_no_text_is_refused(tmp_path: Path) -> None:
    for name in ("in.parquet", "in.csv"):
        path = tmp_path / name
        path.write_bytes(b"\xff\xfe\0")
        with pytest.raises(InvalidRequestError, match="is no "):
            made(path, template="{a}")
