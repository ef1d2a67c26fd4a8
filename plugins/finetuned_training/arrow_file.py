"""Rows in an Arrow file that is mapped, not held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

BATCH_ROWS = 1024


def write(rows: Iterable[Sequence[Any]], columns: dict[str, Any], file: Path) -> datasets.Dataset | None:
    """Write rows of values, one a column, and map the file; ``None`` if there is no row.

    ``columns`` gives the Arrow type of each by its name. Raises what the rows raise.
    """
    import pyarrow as pa
    from datasets import Dataset

    schema, written, remaining = pa.schema(list(columns.items())), 0, iter(rows)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(remaining, BATCH_ROWS)):
            arrays = [
                pa.array(values, type=kind)
                for values, kind in zip(zip(*batch, strict=True), columns.values(), strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            written += len(batch)
    return Dataset.from_file(str(file)) if written else None
