from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.cli import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_a_duration_reads_as_people_say_it(seconds: float | None, text: str) -> None:
    assert units.duration(seconds) == text


@given(st.floats(0, 1e9))
def test_a_duration_never_shows_sixty_of_anything(seconds: float) -> None:
    assert not re.search(r"\b60 (s|min)", units.duration(seconds))


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-:--"), (5, "0:05"), (65.2, "1:05"), (7449, "2:04:09"), (-3, "0:00")]
)
def test_time_left_reads_as_a_clock(seconds: float | None, text: str) -> None:
    assert units.clock(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (271_000_000, "271 MB"),
        (999_700, "1.0 MB"),
        (25e9, "25.0 GB"),
        (3e12, "3.0 TB"),
    ],
)
def test_a_size_is_in_decimal_units(count: float | None, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "True"), (12, "12"), (0.123456, "0.1235"), (2e-05, "2e-05"), ("x", "x")],
)
def test_a_figure_has_four_significant_digits(value: object, text: str) -> None:
    assert units.figure(value) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, "-"),
        ("2026-11-22T12:00:00Z", "0 s"),
        ("2026-11-22T11:59:15.5Z", "44 s"),
        ("2026-11-22T11:55:00Z", "5 min"),
        ("2026-11-22T09:00:00Z", "3 h"),
        ("2026-11-20T09:00:00Z", "2 d"),
        ("2026-11-22T12:00:01Z", "0 s"),
    ],
)
def test_an_age_has_one_unit_and_is_never_negative(at: str | None, text: str) -> None:
    assert units.ago(at, datetime(2026, 11, 22, 12, tzinfo=UTC)) == text


def test_times_are_shown_in_the_zone_of_the_reader() -> None:
    at = "2026-11-22T12:00:00.123456Z"
    here = datetime(2026, 11, 22, 12, tzinfo=UTC).astimezone()
    assert units.local(at) == here.strftime("%Y-%m-%d %H:%M:%S")
    assert units.local(at, date=False) == here.strftime("%H:%M:%S")
    assert units.local(None) == "-"
    assert units.unix_local(here.timestamp()) == units.local(at)
