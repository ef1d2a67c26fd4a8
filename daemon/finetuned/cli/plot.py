"""Curves drawn with characters: two by four dots of braille in each cell, or plain stars. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter

from rich.text import Text

from finetuned.cli import units

DOTS_X, DOTS_Y = 2, 4  # dots in a cell
BRAILLE = 0x2800
#: the bit of each dot of a cell, by column and row (Unicode's braille patterns)
BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
STYLES = ("cyan", "yellow", "green", "magenta", "blue", "red")
NARROWEST = 8  # cells of the field, however narrow the terminal

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve and its points, ordered by x."""

    name: str
    points: Sequence[Point]


@dataclass(slots=True)
class Canvas:
    """A field of ``width`` by ``height`` cells. ``plain`` draws with ASCII, a cell a dot."""

    width: int
    height: int
    plain: bool = False
    _bits: dict[tuple[int, int], int] = field(default_factory=dict)
    _styles: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """How many dots there are in each direction."""
        return (self.width, self.height) if self.plain else (self.width * DOTS_X, self.height * DOTS_Y)

    def dot(self, x: int, y: int, style: str) -> None:
        """Set the dot ``x`` from the left and ``y`` from the bottom."""
        columns, rows = self.size
        if not (0 <= x < columns and 0 <= y < rows):
            return
        y = rows - 1 - y
        per_x, per_y = (1, 1) if self.plain else (DOTS_X, DOTS_Y)
        cell = (x // per_x, y // per_y)
        self._bits[cell] = self._bits.get(cell, 0) | BITS[x % per_x][y % per_y]
        self._styles[cell] = style

    def line(self, start: tuple[int, int], end: tuple[int, int], style: str) -> None:
        """Join two dots."""
        (x, y), (to_x, to_y) = start, end
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        for step in range(steps + 1):
            self.dot(round(x + (to_x - x) * step / steps), round(y + (to_y - y) * step / steps), style)

    def rows(self) -> Iterator[Text]:
        """The field from the top."""
        for row in range(self.height):
            text = Text()
            cells = [
                (self._bits.get((each, row), 0), self._styles.get((each, row))) for each in range(self.width)
            ]
            for style, run in groupby(cells, itemgetter(1)):
                text.append("".join(self._character(bits) for bits, _ in run), style)
            yield text

    def _character(self, bits: int) -> str:
        if not bits:
            return " "
        return "*" if self.plain else chr(BRAILLE + bits)


def chart(curves: Sequence[Curve], *, width: int, height: int, plain: bool = False) -> list[Text]:
    """``curves`` over one another with axes, ``width`` columns wide, ``height`` rows and one of labels high."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return [Text("no points yet", style="dim")]
    left, right = _span(x for x, _ in points)
    low, high = _span(y for _, y in points)
    labels = [units.figure(high - (high - low) * row / max(1, height - 1)) for row in range(height)]
    margin = max(len(labels[row]) for row in _labelled(height))
    canvas = Canvas(max(NARROWEST, width - margin - 2), height, plain)
    columns, rows = canvas.size
    for curve, style in zip(curves, _styles(), strict=False):
        dots = [
            (round((x - left) / (right - left) * (columns - 1)), round((y - low) / (high - low) * (rows - 1)))
            for x, y in curve.points
        ]
        canvas.dot(*dots[0], style)
        for start, end in pairwise(dots):
            canvas.line(start, end, style)
    axis = "|" if plain else "┤"
    shown = [
        Text()
        .append(f"{labels[row] if row in _labelled(height) else '':>{margin}} {axis}", "dim")
        .append_text(cells)
        for row, cells in enumerate(canvas.rows())
    ]
    return [*shown, Text(_below(margin, canvas.width, _span_of_x(points)), style="dim")]


def legend(curves: Sequence[Curve], *, plain: bool = False) -> Text:
    """Each curve's name in its colour, with its newest value."""
    text = Text()
    mark = "*" if plain else "━"
    for curve, style in zip(curves, _styles(), strict=False):
        if text:
            text.append("   ")
        newest = units.figure(curve.points[-1][1]) if curve.points else units.NOTHING
        text.append(f"{mark} {curve.name} ", style).append(newest, "bold")
    return text


def _styles() -> Iterator[str]:
    while True:
        yield from STYLES


def _labelled(height: int) -> set[int]:
    return {0, (height - 1) // 2, height - 1}


def _span(values: Iterable[float]) -> tuple[float, float]:
    """The least and the greatest, apart even if they are one."""
    listed = list(values)
    low, high = min(listed), max(listed)
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    return low, high


def _span_of_x(points: Sequence[Point]) -> tuple[str, str]:
    xs = [x for x, _ in points]
    return units.figure(_whole(min(xs))), units.figure(_whole(max(xs)))


def _whole(value: float) -> float | int:
    return int(value) if abs(value) < 1e12 and value == int(value) else value


def _below(margin: int, width: int, ends: tuple[str, str]) -> str:
    first, last = ends
    return f"{'':>{margin}}  {first}{last:>{max(1, width - len(first))}}"
