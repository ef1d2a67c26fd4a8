from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned_callbacks import retention

FIGURES = st.dictionaries(st.integers(0, 50), st.none() | st.floats(), max_size=12)


@pytest.mark.parametrize(
    ("metric", "greater"), [("eval_loss", False), ("eval_perplexity", False), ("eval_exact_match", True)]
)
def test_more_of_a_loss_is_worse_and_more_of_the_rest_is_better(metric: str, greater: bool) -> None:
    assert retention.greater_is_better(metric) is greater


def test_the_best_and_the_newest_are_kept() -> None:
    figures: dict[int, float | None] = {10: 0.2, 20: 0.1, 30: 0.4, 40: 0.3}
    assert retention.kept(figures, best=1, last=1, greater=False) == {20, 40}
    assert retention.kept(figures, best=2, last=0, greater=True) == {30, 40}


def test_of_equals_the_newer_is_the_best() -> None:
    assert retention.kept({1: 0.5, 2: 0.5}, best=1, last=0, greater=True) == {2}


def test_a_checkpoint_without_a_figure_is_never_the_best() -> None:
    assert retention.kept({1: None, 2: math.nan, 3: 9.0}, best=1, last=0, greater=False) == {3}


@given(FIGURES, st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_something_is_always_kept_and_never_more_than_asked_for(
    figures: dict[int, float | None], best: int, last: int, greater: bool
) -> None:
    kept = retention.kept(figures, best=best, last=last, greater=greater)
    assert kept <= figures.keys()
    assert bool(kept) == bool(figures)
    assert len(kept) <= max(best + last, 1)
    assert set(sorted(figures)[-last:] if last else []) <= kept
