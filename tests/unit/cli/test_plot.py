"""Curves drawn with characters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.cli import plot
from finetuned.cli.plot import Canvas, Curve

VALUES = st.floats(-1e30, 1e30)


def drawn(curves: list[Curve], *, plain: bool = False, width: int = 30, height: int = 5) -> list[str]:
    return [line.plain for line in plot.chart(curves, width=width, height=height, plain=plain)]


def test_each_dot_of_a_cell_has_its_place() -> None:
    for x in range(2):
        for y in range(4):
            canvas = Canvas(1, 1)
            canvas.dot(x, y, "")
            (row,) = canvas.rows()
            assert ord(row.plain) - plot.BRAILLE == plot.BITS[x][3 - y]
    assert sorted(bit for column in plot.BITS for bit in column) == [1 << n for n in range(8)]


def test_dots_outside_of_the_field_are_left_out() -> None:
    canvas = Canvas(2, 2)
    canvas.line((-5, -5), (20, 20), "")
    assert len(list(canvas.rows())) == 2


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    lines = drawn([Curve("up", [(0, 0), (10, 5)])], plain=True)
    field = [line.split("|")[1] for line in lines[:-1]]
    assert field[0].rstrip().endswith("*")
    assert field[-1].startswith("*")
    assert lines[0].startswith("  5 |")
    assert lines[-2].startswith("  0 |")
    assert lines[-1].split() == ["0", "10"]


def test_a_spike_of_one_point_is_seen() -> None:
    points = [(float(x), 0.0) for x in range(1000)]
    points[500] = (500.0, 9.0)
    top = drawn([Curve("spike", points)], plain=True)[0]
    assert top.strip().startswith("9 |")
    assert "*" in top


@pytest.mark.parametrize("points", [[(3.0, 0.5)], [(1.0, 2.0), (2.0, 2.0)], [(0.0, 0.0)]])
def test_one_point_and_a_flat_line_have_a_place(points: list[plot.Point]) -> None:
    assert any("*" in line for line in drawn([Curve("x", points)], plain=True))


def test_no_points_is_a_sentence() -> None:
    assert drawn([Curve("x", [])]) == ["no points yet"]


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20), st.integers(1, 120), st.integers(1, 20))
def test_whatever_the_values_the_chart_has_its_size(
    points: list[plot.Point], width: int, height: int
) -> None:
    lines = drawn([Curve("x", sorted(points))], width=width, height=height)
    assert len(lines) == height + 1
    assert max(map(len, lines)) <= max(width, 40)


def test_the_legend_names_each_curve_with_its_newest_value() -> None:
    text = plot.legend([Curve("loss", [(1, 0.25), (2, 0.125)]), Curve("eval_loss", [])])
    assert text.plain == "━ loss 0.125   ━ eval_loss -"
    assert plot.legend([Curve("loss", [(1, math.pi)])], plain=True).plain == "* loss 3.142"
