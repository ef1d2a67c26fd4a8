"""Prompts of this machine as the requests of a batch: JSONL, CSV or Parquet, with a template over their columns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from finetuned.domain.errors import InvalidRequestError
from finetuned.spelling import nearest

Json = Any
Columns = Mapping[str, Json]

CHAT: Final = "/v1/chat/completions"
PROMPTED: Final = {"/v1/completions": "prompt", "/v1/embeddings": "input"}
ID: Final = "custom_id"
LONGEST_FIELD: Final = 32 << 20  # characters of a cell in a CSV: no request is longer
PLACE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class RowError(Exception):
    """A row from which no request can be made, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How prompts become requests. ``params`` are further fields of each body, such as ``max_tokens``."""

    endpoint: str
    model: str | None
    template: str | None = None
    system: str | None = None
    params: Mapping[str, Json] = field(default_factory=dict)


def requests(file: Path, asking: Asking) -> Iterator[dict[str, Json]]:
    """The requests of a file, one after another. Raises ``InvalidRequestError`` that names the row."""
    for number, row in enumerate(_rows(file), 1):
        try:
            yield _request(row, number, asking)
        except RowError as error:
            raise InvalidRequestError(f"{file.name}, row {number}: {error}", param="file") from None


def write(file: Path, asking: Asking, target: Path) -> int:
    """Write the requests of a file as a batch's input; how many there are."""
    count = 0
    with target.open("w", encoding="utf-8") as out:
        for request in requests(file, asking):
            out.write(json.dumps(request, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        raise InvalidRequestError(f"{file.name} holds no row; there is nothing to ask.", param="file")
    return count


def filled(template: str, row: Columns) -> str:
    """The template with the row's columns in their places; ``{{`` and ``}}`` are braces. Raises ``RowError``."""

    def place(found: re.Match[str]) -> str:
        text, name = found[0], found[1]
        if text in {"{{", "}}"}:
            return text[0]
        if name is None:
            raise RowError(f"the template has a single {text}; write it twice for a brace")
        if name not in row:
            raise RowError(f"there is no column {name!r}.{nearest(name, row)} It has {', '.join(row)}.")
        value = row[name]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return PLACE.sub(place, template)


def _request(row: Columns, number: int, asking: Asking) -> dict[str, Json]:
    if "body" in row and ID in row:  # in OpenAI's form already
        return _own(row, asking)
    if asking.model is None:
        raise RowError("it names no model; give one with --model")
    body = {"model": asking.model, **_asked(row, asking), **asking.params}
    return {
        "custom_id": str(row.get(ID, row.get("id", f"row-{number}"))),
        "method": "POST",
        "url": asking.endpoint,
        "body": body,
    }


def _own(row: Columns, asking: Asking) -> dict[str, Json]:
    if not isinstance(row["body"], dict):
        raise RowError("its body is no JSON object")
    model = {} if asking.model is None else {"model": asking.model}
    return {**row, "body": {**row["body"], **model, **asking.params}}


def _asked(row: Columns, asking: Asking) -> dict[str, Json]:
    if asking.template is None and asking.endpoint == CHAT and isinstance(row.get("messages"), list):
        return {"messages": [*_system(asking), *row["messages"]]}
    text = row.get("prompt") if asking.template is None else filled(asking.template, row)
    if text is None:
        raise RowError(
            "it has neither `messages` nor `prompt`; say with --template what is asked, for instance"
            f" --template '{{{next(iter(row), 'column')}}}'"
        )
    if asking.endpoint == CHAT:
        return {"messages": [*_system(asking), {"role": "user", "content": text}]}
    return {PROMPTED[asking.endpoint]: text}


def _system(asking: Asking) -> list[Json]:
    return [] if asking.system is None else [{"role": "system", "content": asking.system}]


def _rows(file: Path) -> Iterator[Columns]:
    match file.suffix.lower():
        case ".csv" | ".tsv":
            return _of_csv(file, "\t" if file.suffix.lower() == ".tsv" else ",")
        case ".parquet":
            return _of_parquet(file)
    return _of_lines(file)


def _of_lines(file: Path) -> Iterator[Columns]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InvalidRequestError(
                    f"{file.name}, line {number}: it is no JSON object; a file of prompts is JSON lines, CSV (.csv, .tsv)"
                    " or Parquet (.parquet).",
                    param="file",
                )
            yield row


def _of_csv(file: Path, delimiter: str) -> Iterator[Columns]:
    csv.field_size_limit(LONGEST_FIELD)
    with file.open(newline="", encoding="utf-8-sig") as opened:
        try:
            for row in csv.DictReader(opened, delimiter=delimiter):
                yield {name: value or "" for name, value in row.items() if name is not None}
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"{file.name} is no CSV in UTF-8: {error}.", param="file") from None


def _of_parquet(file: Path) -> Iterator[Columns]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - large, and not everybody has it
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise InvalidRequestError(
            "Parquet is read by pyarrow, which is not installed here; `pip install pyarrow`, or give CSV or JSON lines.",
            param="file",
        ) from None
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=1000):
                rows: Iterable[dict[str, Json]] = batch.to_pylist()
                yield from rows
    except pa.ArrowInvalid as error:
        raise InvalidRequestError(f"{file.name} is no Parquet file: {error}.", param="file") from None
