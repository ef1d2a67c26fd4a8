from __future__ import annotations

import pytest

from finetuned.telemetry.history import History, Point, Range, Ring, in_buckets

CPU = ("", "cpu")
GPU = ("gpu:0", "utilization")


def history(*, fine: int = 12, coarse: int = 10) -> History:
    return History(fine=Ring(fine), coarse=Ring(coarse))


def test_a_ring_keeps_the_newest_points_in_order() -> None:
    ring = Ring(3)
    for at in range(5):
        ring.add(Point(at, {CPU: Range(at, at, at)}))
    assert [point.at for point in ring.since(0)] == [2, 3, 4]
    assert [point.figures[CPU].mean for point in ring.since(3)] == [3, 4]
    assert (len(ring), ring.oldest) == (3, 2)


def test_a_ring_without_points_has_none() -> None:
    ring = Ring(3)
    assert (len(ring), ring.oldest, list(ring.since(0))) == (0, None, [])


def test_a_figure_that_comes_later_or_goes_away_is_absent_where_it_was_not_measured() -> None:
    ring = Ring(2)
    for at, key in enumerate([CPU, GPU, CPU]):
        ring.add(Point(at, {key: Range(1, 1, 1)}))
    assert [set(point.figures) for point in ring.since(0)] == [{GPU}, {CPU}]


def test_a_minute_keeps_the_least_the_mean_and_the_greatest_of_its_samples() -> None:
    kept = history()
    for at, value in ((60, 0.1), (75, 0.9), (90, 0.2), (120, 0.5)):
        kept.add(at, {CPU: value})
    (minute,) = kept.coarse.since(0)
    assert minute.at == 60
    assert minute.figures[CPU].mean == pytest.approx(0.4)
    assert (minute.figures[CPU].low, minute.figures[CPU].high) == (0.1, 0.9)


def test_a_look_behind_the_oldest_sample_is_told_by_minutes_and_the_rest_by_samples_each_once() -> None:
    kept = history(fine=6)
    for at in range(0, 300, 15):  # the samples from 210 on are kept, the minutes up to 240
        kept.add(at, {CPU: at})
    assert [point.at for point in kept.since(0)] == [0, 60, 120, 180, 240, 255, 270, 285]
    assert [point.at for point in kept.since(215)] == [225, 240, 255, 270, 285]


def test_before_the_first_minute_has_ended_its_samples_are_told() -> None:
    kept = history(fine=6)
    for at in (100, 105):
        kept.add(at, {CPU: at})
    assert [point.at for point in kept.since(0)] == [100, 105]
    assert list(history().since(0)) == []


def test_what_is_kept_is_bounded_however_long_it_goes_on() -> None:
    kept = history(fine=12, coarse=10)
    for at in range(0, 100_000, 5):
        kept.add(at, {CPU: 1, GPU: 2})
    assert (len(kept.fine), len(kept.coarse)) == (12, 10)


def test_a_spike_of_one_sample_is_seen_in_the_coarsest_look_after_hours() -> None:
    kept = history(fine=12, coarse=1440)
    for at in range(0, 8 * 3600, 5):
        kept.add(at, {CPU: 1.0 if at == 7200 else 0.0})
    (bucket,) = in_buckets(kept.since(0), 8 * 3600)
    assert bucket.figures[CPU].high == 1.0
    assert bucket.figures[CPU].low == 0.0
    assert 0 < bucket.figures[CPU].mean < 0.01


def test_buckets_begin_at_multiples_of_their_width_and_empty_ones_are_left_out() -> None:
    points = (Point(at, {CPU: Range(at, at, at)}) for at in (101, 109, 131))
    assert [(each.at, each.figures[CPU]) for each in in_buckets(points, 10)] == [
        (100, Range(101, 105, 109)),
        (130, Range(131, 131, 131)),
    ]
