"""What the packed decoder's cache takes of the memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finetuned_transformers.slot_cache import SlotCache

pytestmark = pytest.mark.torch

LAYERS, HEADS, HEAD_DIM, COLUMNS, ROWS = 4, 3, 64, 8192, 8
PAGE_KB = 4


def resident_kb(address: int) -> int:
    """What is resident of the mapping that an address lies in."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("Rss:"):
            return int(line.split()[1])
    raise AssertionError("no mapping has that address")


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
    assert resident_kb(cache.keys.data_ptr()) <= 2 * written * PAGE_KB
