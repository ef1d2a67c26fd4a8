"""When a delivery is tried again: the schedule of Standard Webhooks, and what a receiver asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.webhooks import schedule

HOUR = 3600.0


def test_ten_tries_are_made_over_three_days() -> None:
    delays = [schedule.delay_s(tries, jitter=0.0) for tries in range(1, 11)]
    assert delays == [
        5.0, 300.0, 1800.0, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR, None,
    ]  # fmt: skip


@given(st.integers(1, 9), st.floats(0, 1))
def test_jitter_makes_a_delay_longer_by_a_tenth_at_most(tries: int, jitter: float) -> None:
    plain, jittered = schedule.delay_s(tries, jitter=0.0), schedule.delay_s(tries, jitter=jitter)
    assert plain is not None
    assert jittered is not None
    assert plain <= jittered <= plain * 1.1 + 1e-6


@pytest.mark.parametrize(("asked_s", "waits_s"), [(1.0, 5.0), (60.0, 60.0), (1e9, 24 * HOUR)])
def test_a_receiver_that_says_when_is_not_asked_earlier_nor_forgotten(asked_s: float, waits_s: float) -> None:
    assert schedule.delay_s(1, jitter=0.0, retry_after_s=asked_s) == waits_s


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 100, None),
        ("1 Jan 99999999999 00:00:00", None),
        ("1 Jan 0001 00:00:00 +9999999", None),
        ("", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert schedule.retry_after_s(header, now=100.0) == seconds


@given(st.integers(1, 20), st.floats(-1e9, 1e9))
def test_a_clock_that_was_set_makes_no_delay_longer(tries: int, since_s: float) -> None:
    assert 0 <= schedule.left_s(tries, since_s) <= 24 * HOUR


def test_a_delay_goes_on_where_it_was() -> None:
    assert schedule.left_s(2, 100.0) == 200.0
    assert schedule.left_s(2, 1000.0) == 0.0
