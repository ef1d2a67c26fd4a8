"""Requests that begin alike are asked side by side, the longer ones first, and none is left out."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.batch.inputs import limits, line, written

from finetuned_batch import requests
from finetuned_batch.order import ordered
from finetuned_batch.requests import Row

ROWS = st.lists(
    st.builds(
        Row,
        st.integers(0, 1 << 20),
        st.integers(1, 1000),
        st.binary(min_size=4, max_size=4),
        st.sampled_from([b"a", b"b", b"c"]),
    ),
    max_size=50,
)


@given(ROWS)
def test_an_order_is_a_permutation_and_always_the_same(rows: list[Row]) -> None:
    found = ordered(rows)
    assert sorted(found, key=repr) == sorted(rows, key=repr)
    assert ordered(found) == found


@given(ROWS)
def test_kin_stand_side_by_side_and_the_longer_first(rows: list[Row]) -> None:
    found = ordered(rows)
    for prefix in {row.prefix for row in rows}:
        places = [place for place, row in enumerate(found) if row.prefix == prefix]
        lengths = [found[place].length for place in places]
        if len(places) > 1:
            assert places == list(range(places[0], places[-1] + 1))
            assert lengths == sorted(lengths, reverse=True)


def test_prompts_are_kin_that_begin_with_the_same_characters(tmp_path: Path) -> None:
    shared = "You are a clerk. " * 30
    texts = ["short", f"{shared} one", "a longer one without kin", f"{shared} two and more"]
    path = written(tmp_path / "in.jsonl", [line(str(place), text) for place, text in enumerate(texts)])
    found = requests.read(path, limits())
    assert [found.rows.index(row) for row in ordered(found.rows)] == [3, 1, 2, 0]
