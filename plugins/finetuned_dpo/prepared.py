"""Tokenized pairs as a ``datasets.Dataset`` that is mapped from a file, not held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from finetuned_dpo.tokenization import TokenizedPair
from finetuned_sdk import BadDatasetError, RowProblem

if TYPE_CHECKING:
    import datasets

BATCH_ROWS = 1024
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
    from datasets import Dataset

    schema = pa.schema([(name, pa.list_(pa.int32())) for name in COLUMNS])
    differing = _differing(rows, source, max_length)
    written = 0
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(differing, BATCH_ROWS)):
            arrays = [pa.array(column) for column in zip(*batch, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            written += len(batch)
    if not written:
        raise BadDatasetError(
            source,
            [RowProblem(1, "no pair is left")],
            remedy="Add rows, or raise max_length if all were cut.",
        )
    return Dataset.from_file(str(file))


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
