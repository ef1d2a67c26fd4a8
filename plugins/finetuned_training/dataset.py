"""Reading rows from JSONL, JSON, CSV and Parquet files, folders of them, and hub datasets.

Rows stream: a file is never held as a whole. What cannot be read comes out as a ``RowProblem`` in its place,
with the line (JSONL, CSV) or the row (JSON, Parquet) it is in, so that one pass finds every problem.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from finetuned_sdk import JobError, RowProblem
from finetuned_training import json_stream
from finetuned_training.local_path import local_path

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
READ_BYTES = 1 << 20
PARQUET_ROWS = 1024

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as it was read: ``number`` is its line or row in ``file``, counted from 1."""

    number: int
    data: Mapping[str, Any]
    file: str = ""

    def problem(self, reason: str) -> RowProblem:
        """What is wrong with this row, naming its file if there are several."""
        return RowProblem(self.number, f"{self.file}: {reason}" if self.file else reason)


def files(dataset: str, split: str = "train") -> tuple[Path, ...]:
    """The files behind a local path, in name order; empty for a hub id.

    In a folder, files whose names begin with the split are preferred, so that ``test.jsonl`` beside
    ``train.jsonl`` is not trained on. Raises ``JobError`` (``dataset_not_found``, ``dataset_unsupported``).
    """
    path = local_path(dataset)
    if path.is_dir():
        found = tuple(sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()))
        if not found:
            raise JobError(
                f"The folder {dataset} has no {', '.join(SUFFIXES)} file; put the rows in one of those.",
                code="dataset_not_found",
            )
        return tuple(p for p in found if p.stem.startswith(split)) or found
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise JobError(
                f"{dataset} ends in {path.suffix or 'nothing'}; datasets are {', '.join(SUFFIXES)}.",
                code="dataset_unsupported",
            )
        return (path,)
    if path.is_absolute() or path.suffix.lower() in SUFFIXES or not HUB_ID.match(dataset):
        raise JobError(
            f"There is no dataset at {dataset}; give the path of a file or folder, or a hub id (owner/name).",
            code="dataset_not_found",
        )
    return ()


def sha256(dataset: str, split: str = "train") -> str | None:
    """The SHA-256 of a file's bytes, or of a folder's names and bytes in name order; ``None`` for a hub id."""
    paths = files(dataset, split)
    if not paths:
        return None
    digest = hashlib.sha256()
    for path in paths:
        if len(paths) > 1:
            digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


def read_rows(dataset: str, split: str = "train") -> Iterator[SourceRow | RowProblem]:
    """Every row of a file, folder or hub dataset, in order. Raises ``JobError`` if it cannot be opened."""
    paths = files(dataset, split)
    if not paths:
        yield from _read_hub(dataset, split)
    for path in paths:
        name = path.name if len(paths) > 1 else ""
        for item in _read_file(path):
            if isinstance(item, RowProblem):
                yield RowProblem(item.row, f"{name}: {item.reason}") if name else item
            else:
                yield SourceRow(*item, file=name)


Item = tuple[int, Mapping[str, Any]] | RowProblem


def _read_file(path: Path) -> Iterator[Item]:
    try:
        match path.suffix.lower():
            case ".jsonl" | ".ndjson":
                yield from _read_jsonl(path)
            case ".json":
                yield from _read_json(path)
            case ".csv":
                yield from _read_csv(path)
            case _:
                yield from _read_parquet(path)
    except OSError as error:
        raise JobError(
            f"{path} cannot be read: {error.strerror or error}; check its permissions.",
            code="dataset_unreadable",
        ) from error


def _read_jsonl(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield _item(number, json.loads(text))
            except UnicodeDecodeError as error:
                yield RowProblem(number, f"not UTF-8 at byte {error.start + 1} of the line")
            except json.JSONDecodeError as error:
                yield RowProblem(number, f"malformed JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield RowProblem(number, "malformed JSON: nested too deeply")


def _item(number: int, value: object) -> Item:
    if isinstance(value, dict):
        return number, value
    return RowProblem(number, f"not a JSON object but {type(value).__name__}")


def _read_json(path: Path) -> Iterator[Item]:
    """An array of objects, an object that holds just one, or JSON Lines in a file that calls itself .json."""
    with path.open(encoding="utf-8-sig") as file:
        values = json_stream.values(file)
        number = 0
        try:
            for number, value in enumerate(values, start=1):
                if number == 1 and isinstance(value, dict) and len(value) == 1:
                    (rows,) = value.values()
                    if (
                        isinstance(rows, list)
                        and rows
                        and isinstance(rows[0], dict)
                        and "role" not in rows[0]
                    ):
                        yield from (_item(n, row) for n, row in enumerate(rows, start=1))
                        return
                yield _item(number, value)
        except json_stream.MalformedError as error:
            yield RowProblem(number + 1, f"malformed JSON: {error}")
        except UnicodeDecodeError:
            yield RowProblem(number + 1, "not UTF-8 somewhere after this row")


def _read_csv(path: Path) -> Iterator[Item]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        line = 1
        try:
            for row in reader:
                started, line = line + 1, reader.line_num
                if None in row:
                    yield RowProblem(started, "more cells than the header has columns")
                else:
                    yield started, row
        except csv.Error as error:
            yield RowProblem(line + 1, f"malformed CSV: {error}")
        except UnicodeDecodeError:
            yield RowProblem(line + 1, "not UTF-8 somewhere after this line")


def _read_parquet(path: Path) -> Iterator[Item]:
    parquet = _import_pyarrow_parquet()
    import pyarrow as pa

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    # Columns that other rows have and this one lacks come as nulls.
                    yield number, {key: value for key, value in row.items() if value is not None}
    except pa.ArrowException as error:
        raise JobError(
            f"{path} is no Parquet file that pyarrow can read ({error}); write it anew.",
            code="dataset_unreadable",
        ) from error


def _import_pyarrow_parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise JobError(
            "Reading Parquet needs pyarrow; install finetuned[train].", code="missing_dependency"
        ) from error
    return parquet


def _read_hub(dataset: str, split: str) -> Iterator[SourceRow | RowProblem]:
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset, split=split)
    except Exception as error:
        raise JobError(
            f"The hub dataset {dataset} (split {split}) cannot be loaded: {error}. Check the id and the split, and "
            "that this machine may reach the hub; or give a local file.",
            code="dataset_not_found",
        ) from error
    for number, row in enumerate(rows, start=1):
        yield SourceRow(number, {key: value for key, value in row.items() if value is not None})


def telling(advancing: Callable[[], None], rows: Iterable[Row]) -> Iterator[Row]:
    """The rows; a large dataset takes hours, and the watchdog is to see that it gets on."""
    for row in rows:
        advancing()
        yield row
