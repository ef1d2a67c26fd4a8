"""Tokenized rows as a ``datasets.Dataset`` that is mapped from a file, not held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetuned_sdk import BadDatasetError, RowProblem
from finetuned_sft.tokenization import IGNORED, TokenizedRow
from finetuned_training import arrow_file

if TYPE_CHECKING:
    import datasets


def prepare(
    rows: Iterable[TokenizedRow | RowProblem], file: Path, *, source: str, max_length: int
) -> datasets.Dataset:
    """Write the rows, cut to ``max_length``, to an Arrow ``file`` and map it.

    Rows that have nothing left to learn after the cut are left out, as TRL does. Raises ``BadDatasetError`` at
    the first bad row, or if no row is left.
    """
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    learnable = _learnable(rows, source, max_length)
    found = arrow_file.write(learnable, {"input_ids": ids, "labels": ids}, file)
    if found is None:
        raise BadDatasetError(
            source, [RowProblem(1, "no row is left")], remedy="Add rows, or raise max_length if all were cut."
        )
    return found


def _learnable(
    rows: Iterable[TokenizedRow | RowProblem], source: str, max_length: int
) -> Iterator[tuple[list[int], list[int]]]:
    for row in rows:
        if isinstance(row, RowProblem):
            raise BadDatasetError(source, [row], remedy="Correct the row and submit the job again.")
        labels = row.labels[:max_length]
        if any(label != IGNORED for label in labels):
            yield row.input_ids[:max_length], labels
