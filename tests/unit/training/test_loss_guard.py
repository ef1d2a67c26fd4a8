"""The guard over the loss: what has diverged, and what only looks like it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned_training.loss_guard import NOT_A_NUMBER_LIMIT, PATIENCE, SMOOTHED, LossGuard

DESCENT = [3.0 - 0.05 * step for step in range(20)]  # from 3.0 to 2.05


def verdicts(losses: list[float], max_ratio: float | None = 3.0) -> list[str | None]:
    guard = LossGuard(max_ratio)
    return [guard.add(loss) for loss in losses]


def test_a_loss_that_stays_far_above_its_best_and_its_beginning_has_diverged() -> None:
    found = verdicts([*DESCENT, *[9.0] * PATIENCE])
    assert found[:-1] == [None] * (len(found) - 1)
    assert "more than 3 times its best level" in str(found[-1])
    assert "9 now" in str(found[-1])


def test_one_good_report_begins_the_count_anew() -> None:
    blown = [9.0] * (PATIENCE - 1)
    assert not any(verdicts([*DESCENT, *blown, 2.0, *blown]))


def test_a_loss_near_zero_that_becomes_larger_has_not_diverged_while_it_is_below_where_it_began() -> None:
    assert not any(verdicts([*DESCENT, *[0.01] * 30, *[0.5] * 100]))


def test_a_ratio_alone_is_not_enough_nor_is_the_beginning() -> None:
    assert not any(verdicts([*DESCENT, *[5.0] * 100]))  # 2.1 times the best
    assert not any(verdicts([*[0.5] * 20, *[1.4] * 100]))


def test_without_a_ratio_only_nan_ends_a_run() -> None:
    assert not any(verdicts([*DESCENT, *[1e9] * 100], None))
    assert verdicts([math.nan] * NOT_A_NUMBER_LIMIT, None)[-1] == "is no longer a number"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_few_reports_that_are_no_number_are_borne(bad: float) -> None:
    assert not any(verdicts([*DESCENT, *([bad] * (NOT_A_NUMBER_LIMIT - 1) + [2.0]) * 5]))
    assert verdicts([*DESCENT, *[bad] * NOT_A_NUMBER_LIMIT])[-1] is not None


def test_a_run_is_not_judged_before_it_has_a_level() -> None:
    assert not any(verdicts([0.1] * (SMOOTHED - 1) + [50.0] * 5))


@given(st.integers(0, 2**32), st.floats(0.05, 5.0), st.floats(0.0, 1.0))
def test_a_noisy_loss_that_falls_or_stays_is_never_taken_for_diverged(
    seed: int, level: float, share_left: float
) -> None:
    """Batches of one row differ by far more than a run does: a log-normal spread, as of real single rows."""
    draw = random.Random(seed)
    losses = [
        level * (share_left + (1 - share_left) * 0.98**step) * draw.lognormvariate(0.0, 0.5)
        for step in range(400)
    ]
    assert not any(verdicts(losses))
