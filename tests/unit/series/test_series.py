"""Curves: thinned without hiding a spike, and of a resumed job without the steps that were done again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuned.results.series import Curves, Run, Span, Thinner, trajectory
from finetuned_events import Event

values = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=700)
sizes = st.integers(min_value=1, max_value=60)


def thinned(given_values: list[float], points: int) -> list[tuple[int, int, int, float]]:
    thinner = Thinner(points)
    for step, value in enumerate(given_values):
        thinner.add(step, 10 * step, value)
    return thinner.points()


@given(values, sizes)
def test_never_more_points_than_asked_rounded_up_to_four(given_values: list[float], points: int) -> None:
    assert len(thinned(given_values, points)) <= -(-points // 4) * 4


@given(values, sizes)
def test_extremes_and_both_ends_are_kept(given_values: list[float], points: int) -> None:
    kept = [value for _, _, _, value in thinned(given_values, points)]
    if given_values:
        assert (kept[0], kept[-1]) == (given_values[0], given_values[-1])
        assert (min(kept), max(kept)) == (min(given_values), max(given_values))


@given(values, sizes)
def test_what_is_kept_was_there_and_is_in_order(given_values: list[float], points: int) -> None:
    kept = thinned(given_values, points)
    assert kept == sorted(set(kept))
    assert all(given_values[step] == value and at == 10 * step == 10 * n for n, step, at, value in kept)


@given(values)
def test_what_fits_is_kept_whole(given_values: list[float]) -> None:
    assert [point[3] for point in thinned(given_values, len(given_values))] == given_values


@settings(max_examples=5)
@given(st.integers(min_value=0, max_value=49_999))
def test_one_spike_among_many_points_is_seen(where: int) -> None:
    thinner = Thinner(100)
    for step in range(50_000):
        thinner.add(step, step, 1e9 if step == where else 1.0)
    assert (where, where, where, 1e9) in thinner.points()
    assert thinner.total == 50_000


def event(seq: int, event_type: str, data: dict[str, Any]) -> Event:
    return Event(seq, "job/1", seq, event_type, 1, 1000 * seq, "attempt:1", None, data)


def progress(seq: int, step: int, **figures: Any) -> Event:
    return event(seq, "job.progress", {"current_step": step, "total_steps": 100, **figures})


def points_of(curves: Curves) -> dict[tuple[str, int | None], list[tuple[int, float]]]:
    return {
        (each.name, each.attempt): [(step, value) for _, step, _, value in each.points]
        for each in curves.series()
    }


FIRST = [Span(1, 1)]


def test_each_number_of_a_report_is_a_point_and_nothing_else_is() -> None:
    curves = Curves(FIRST, points=100)
    curves.fold([progress(2, 1, loss=0.5, epoch=1, note="slow", is_best=True, memory=None)])
    assert points_of(curves) == {("epoch", None): [(1, 1.0)], ("loss", None): [(1, 0.5)]}
    assert curves.names == {"loss", "epoch"}


def test_evaluations_are_series_named_for_evaluation_and_metric() -> None:
    curves = Curves(FIRST, points=100)
    scored = {"name": "held out", "metrics": {"accuracy": 0.25}}
    curves.fold(
        [
            event(2, "evaluation.recorded", {**scored, "step": 3}),
            progress(3, 7, loss=1.0),
            event(4, "evaluation.recorded", {**scored, "step": None}),  # as of the step before it
        ]
    )
    assert points_of(curves)["evaluation/held out/accuracy", None] == [(3, 0.25), (7, 0.25)]


def test_only_the_series_that_are_named_are_kept_and_all_names_are_told() -> None:
    curves = Curves(FIRST, points=100, wanted={"loss"})
    curves.fold([progress(2, 1, loss=0.5, grad_norm=2.0)])
    assert list(points_of(curves)) == [("loss", None)]
    assert curves.names == {"loss", "grad_norm"}
    assert not curves.more


def test_series_beyond_the_most_that_is_kept_are_said_to_be_missing() -> None:
    curves = Curves(FIRST, points=100, most=2)
    curves.fold([progress(2, 1, a=1, b=2, c=3)])
    assert len(curves.series()) == 2
    assert curves.more


def test_what_validation_reports_is_no_curve() -> None:
    curves = Curves([Span(10, 1)], points=100)
    curves.fold([progress(5, 1, rows=100), progress(11, 1, loss=1.0)])
    assert list(points_of(curves)) == [("loss", None)]


RESUMED = [Run(1, 1, 0, 1), Run(100, 2, 4, 5)]


@pytest.mark.parametrize(
    ("runs", "until"),
    [
        (RESUMED, [4, None]),
        ([Run(1, 1, 0, 1), Run(100, 2, None, 6)], [5, None]),  # its checkpoint is not known
        ([Run(1, 1, 0, 1), Run(100, 2, 4, None)], [None, None]),  # it died before a step
        ([Run(1, 1, 0, 1), Run(100, 2, 0, 1)], [0, None]),  # it began anew
        ([Run(1, 1, 0, 1), Run(100, 2, 8, 9), Run(200, 3, 4, 5)], [4, 4, None]),
        ([Run(1, 1, 0, 1), Run(100, 2, 4, 5), Run(200, 3, 8, 9)], [4, 8, None]),
    ],
)
def test_a_later_run_replaces_the_steps_from_which_it_went_on(
    runs: list[Run], until: list[int | None]
) -> None:
    assert [span.until for span in trajectory(runs)] == until


def two_runs() -> list[Event]:
    first = [progress(1 + step, step, loss=float(step)) for step in range(1, 9)]
    second = [progress(100 + step, step, loss=10.0 * step) for step in range(5, 11)]
    return [*first, *second]


def test_a_resumed_job_shows_each_step_once_as_it_was_done_last() -> None:
    curves = Curves(trajectory(RESUMED), points=100)
    curves.fold(two_runs())
    expected = [(step, float(step) if step <= 4 else 10.0 * step) for step in range(1, 11)]
    assert points_of(curves) == {("loss", None): expected}


def test_all_attempts_are_shown_apart_with_every_step() -> None:
    curves = Curves(trajectory(RESUMED), points=100, each_attempt=True)
    curves.fold(two_runs())
    assert points_of(curves) == {
        ("loss", 1): [(step, float(step)) for step in range(1, 9)],
        ("loss", 2): [(step, 10.0 * step) for step in range(5, 11)],
    }


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=6))
def test_the_final_trajectory_is_what_overwriting_step_by_step_leaves(shapes: list[tuple[int, int]]) -> None:
    """A run goes on from a checkpoint that an earlier one reached, and overwrites what was done after it."""
    runs: list[Run] = []
    events: list[Event] = []
    left: dict[int, float] = {}
    for attempt, (wish, steps) in enumerate(shapes, start=1):
        start = min(wish, max(left, default=0))
        seq = 1000 * attempt
        runs.append(Run(seq, attempt, start, start + 1))
        left = {step: value for step, value in left.items() if step <= start}
        for step in range(start + 1, start + 1 + steps):
            events.append(progress(seq + step, step, loss=float(seq + step)))
            left[step] = float(seq + step)
    curves = Curves(trajectory(runs), points=10_000)
    curves.fold(events)
    assert points_of(curves) == {("loss", None): sorted(left.items())}
