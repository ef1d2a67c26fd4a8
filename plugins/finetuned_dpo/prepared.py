"""Tokenized pairs as a ``datasets.Dataset`` that is mapped from a file, not held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetuned_dpo.tokenization import TokenizedPair
from finetuned_sdk import BadDatasetError, RowProblem
from finetuned_training import arrow_file

if TYPE_CHECKING:
    import datasets

COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")  # as TRL's collator wants them

Cut = tuple[list[int], list[int], list[int]]


def prepare(
    rows: Iterable[TokenizedPair | RowProblem], file: Path, *, source: str, max_length: int
) -> datasets.Dataset:
    """Write the pairs, cut to ``max_length``, to an Arrow ``file`` and map it.

    Pairs that the cut leaves nothing to prefer in are left out. Raises ``BadDatasetError`` at the first bad row, or if
    no pair is left.
    """
    import pyarrow as pa

    columns = dict.fromkeys(COLUMNS, pa.list_(pa.int32()))
    found = arrow_file.write(_differing(rows, source, max_length), columns, file)
    if found is None:
        raise BadDatasetError(
            source,
            [RowProblem(1, "no pair is left")],
            remedy="Add rows, or raise max_length if all were cut.",
        )
    return found


def _differing(rows: Iterable[TokenizedPair | RowProblem], source: str, max_length: int) -> Iterator[Cut]:
    for row in rows:
        if isinstance(row, RowProblem):
            raise BadDatasetError(source, [row], remedy="Correct the row and submit the job again.")
        cut = row.cut(max_length)
        if differs(cut):
            yield cut


def differs(cut: Cut) -> bool:
    """Whether there is something left to prefer: both answers, and a difference between them."""
    _, chosen, rejected = cut
    return bool(chosen) and bool(rejected) and chosen != rejected
