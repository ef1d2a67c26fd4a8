"""How many tokens each row of a prepared dataset has: of a pair the longer sequence. Read from the columns' offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import datasets
    from numpy.typing import NDArray

BATCH_ROWS = 4096


def token_lengths(rows: datasets.Dataset) -> NDArray[np.int32]:
    """Tokens by row, int32 [rows], in the dataset's order. Raises ``KeyError`` for columns of another form."""
    import pyarrow.compute as pc

    columns = (
        ["input_ids"] if "input_ids" in rows.column_names else ["prompt_ids", "chosen_ids", "rejected_ids"]
    )
    parts = []
    for batch in rows.select_columns(columns).with_format("arrow").iter(BATCH_ROWS):
        first, *answers = (
            pc.list_value_length(batch[name]).to_numpy(zero_copy_only=False) for name in columns
        )
        parts.append(first + np.maximum.reduce(answers) if answers else first)
    return np.concatenate(parts).astype(np.int32)
