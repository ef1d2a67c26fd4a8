"""What is tried to find the fastest batch, when it ends, and what is taken."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned_training.batch_search import Tried, best, candidates, foretold, largest_divisor, search

GB = 1 << 30


def machine(
    rate: Callable[[int], float], *, a_row: int = GB, floor: int = GB, room: int | None = None
) -> tuple[Callable[[int], Tried], list[int]]:
    """A probe of a machine with ``rate`` rows/s, and the batches that it was asked for."""
    asked: list[int] = []

    def probe(batch: int) -> Tried:
        asked.append(batch)
        peak = floor + batch * a_row
        if room is not None and peak > room:
            return Tried(batch=batch, fits=False)
        return Tried(batch=batch, fits=True, rows_per_second=rate(batch), peak_bytes=peak)

    return probe, asked


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_batches_double_at_least_and_divide_the_rows_of_a_step(rows: int, at_most: int) -> None:
    found = candidates(rows, at_most)
    assert found[0] == 1
    assert all(rows % batch == 0 for batch in found)
    assert all(later >= 2 * earlier for earlier, later in pairwise(found))
    assert found == [1] or found[-1] <= at_most


def test_all_powers_of_two_are_tried_and_odd_steps_take_what_divides_them() -> None:
    assert candidates(16, 16) == [1, 2, 4, 8, 16]
    assert candidates(48, 48) == [1, 2, 4, 8, 16, 48]
    assert candidates(15, 15) == [1, 3, 15]
    assert candidates(16, 5) == [1, 2, 4]


def test_the_largest_divisor_is_what_a_share_of_a_batch_can_be() -> None:
    assert [largest_divisor(12, at_most) for at_most in (12, 6, 5, 4.5, 1, 0.25)] == [12, 6, 4, 4, 1, 1]


def test_what_is_foretold_to_need_too_much_is_not_tried() -> None:
    probe, asked = machine(lambda batch: batch)
    tried = list(search(probe, [1, 2, 4, 8, 16], 10 * GB, GB))
    assert asked == [1, 2, 4, 8]
    assert tried[-1] == Tried(batch=16, fits=False, peak_bytes=17 * GB)
    assert best(tried) == tried[3]


def test_a_first_batch_is_tried_whatever_the_limit_and_a_missing_limit_ends_nothing() -> None:
    probe, asked = machine(lambda batch: batch)
    assert [each.fits for each in search(probe, [1, 2], GB, GB)] == [True, False]
    assert asked == [1]
    assert [each.fits for each in search(probe, [1, 2, 4], None, 0)] == [True, True, True]


def test_memory_that_runs_out_ends_the_search_and_the_best_before_it_is_taken() -> None:
    probe, asked = machine(lambda batch: batch, room=6 * GB)
    tried = list(search(probe, [1, 2, 4, 8, 16], None, GB))
    assert asked == [1, 2, 4, 8]
    taken = best(tried)
    assert taken is not None
    assert taken.batch == 4


def test_two_batches_in_a_row_that_are_no_faster_end_the_search() -> None:
    probe, asked = machine({1: 5.0, 2: 8.0, 4: 7.0, 8: 6.0, 16: 99.0}.__getitem__)
    tried = list(search(probe, [1, 2, 4, 8, 16], None, GB))
    assert asked == [1, 2, 4, 8]
    assert best(tried) == tried[1]


def test_one_slow_batch_between_faster_ones_does_not() -> None:
    probe, asked = machine({1: 5.0, 2: 4.0, 4: 7.0, 8: 9.0}.__getitem__)
    assert best(list(search(probe, [1, 2, 4, 8], None, GB))) == Tried(
        batch=8, fits=True, rows_per_second=9.0, peak_bytes=9 * GB
    )
    assert asked == [1, 2, 4, 8]


def test_of_batches_that_are_as_fast_the_smallest_is_taken() -> None:
    tried = [
        Tried(batch=batch, fits=True, rows_per_second=rate) for batch, rate in ((1, 5.0), (2, 9.9), (4, 10.0))
    ]
    assert best(tried) == tried[1]
    assert best([Tried(batch=1, fits=False)]) is None
    assert best([]) is None


@pytest.mark.parametrize(("second", "expected"), [((2, 30), 70), ((2, 10), 10), ((2, 5), 5)])
def test_memory_is_foretold_on_a_line_that_never_falls(second: tuple[int, int], expected: int) -> None:
    assert foretold((1, 20 if second[1] == 30 else 10), second, 6) == expected
