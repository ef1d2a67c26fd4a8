"""What the packed decoder's cache takes of the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuned_transformers.slot_cache import SlotCache

pytestmark = pytest.mark.torch

LAYERS, HEADS, HEAD_DIM, COLUMNS, ROWS = 4, 3, 64, 8192, 8
PAGE_KB = 4


def resident_kb(tensor: Any) -> int:
    """What of a tensor is in memory. Each page has 64 bits in ``pagemap``, of which the highest says that."""
    with Path("/proc/self/pagemap").open("rb") as file:
        file.seek(tensor.data_ptr() // (PAGE_KB << 10) * 8)
        entries = memoryview(file.read(tensor.nbytes // (PAGE_KB << 10) * 8)).cast("Q")
    return PAGE_KB * sum(entry >> 63 for entry in entries)


def test_a_short_row_takes_little_where_rows_may_be_long() -> None:
    import torch

    cache = SlotCache(LAYERS, HEADS, HEAD_DIM, most_tokens=ROWS * COLUMNS)
    cache.make_room([COLUMNS] * ROWS)
    assert cache.keys.data_ptr() % (PAGE_KB << 10) == 0
    token = torch.ones(HEADS, 1, HEAD_DIM)
    for slot in range(ROWS):
        for layer in range(LAYERS):
            cache.write(layer, slot, 0, token, token)
        cache.add(1, COLUMNS)
    written = LAYERS * ROWS * HEADS  # places, each in a page of its own
    assert resident_kb(cache.keys) <= 2 * written * PAGE_KB
