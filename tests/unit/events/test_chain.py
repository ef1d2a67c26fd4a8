from __future__ import annotations

import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetuned_events import chain

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
NUMBER = st.integers(0, 2**53)
ROWS = st.tuples(
    NUMBER, TEXT, NUMBER, TEXT, NUMBER, NUMBER, TEXT, st.none() | TEXT, st.sampled_from([b"{}", b'{"a":1}'])
)


def test_a_link_is_the_sha256_that_anybody_can_recompute() -> None:
    row = (3, "job/1", 2, "job.noted", 1, 1_700_000_000_000_000, "system", None)
    data = b'{"value":1}'
    expected = hashlib.sha256(chain.GENESIS + json.dumps(row, separators=(",", ":")).encode() + data).digest()
    assert chain.link(chain.GENESIS, *row, data) == expected


@given(ROWS, ROWS)
def test_different_rows_have_different_links(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    same = chain.link(chain.GENESIS, *one) == chain.link(chain.GENESIS, *other)
    assert same == (one == other)
    assert chain.link(chain.GENESIS, *one) != chain.link(bytes([1]) * 32, *one)
