"""Which number of rows a pass is the fastest that fits: what to try, when to stop, what to take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

ALIKE = 0.02  # rates that differ by less are taken to be the same
STOP_AFTER = 2  # sizes in a row that were no faster than one before


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of one number of rows a pass. Rates are 0.0 where it did not fit.

    ``peak_bytes`` is the most that the process had taken by then, of GPU memory on a GPU; of what was not tried, what
    it would have taken. ``tokens_per_second`` counts no padding.
    """

    batch: int
    fits: bool
    rows_per_second: float = 0.0
    tokens_per_second: float = 0.0
    peak_bytes: int | None = None


def candidates(rows_a_step: int, at_most: int) -> list[int]:
    """Numbers of rows a pass that divide those of a step, each at least twice the one before; at least one."""
    found = [1]
    for rows in range(2, min(rows_a_step, at_most) + 1):
        if rows_a_step % rows == 0 and rows >= 2 * found[-1]:
            found.append(rows)
    return found


def largest_divisor(rows_a_step: int, at_most: float) -> int:
    """The largest number of rows a pass up to ``at_most`` that divides those of a step; 1 below that."""
    return next((rows for rows in range(max(1, int(at_most)), 1, -1) if rows_a_step % rows == 0), 1)


def search(
    probe: Callable[[int], Tried], batches: list[int], limit_bytes: int | None, floor_bytes: int
) -> Iterator[Tried]:
    """Try one size after the other, from the smallest up, until one does not fit or two in a row are no faster.

    What the next one would take is foretold by a line through the last two, at first through ``floor_bytes``, what
    was taken before; a size whose peak would be above ``limit_bytes`` is not tried.
    """
    before, best, slower = (0, floor_bytes), 0.0, 0
    last: Tried | None = None
    for batch in batches:
        if last is not None and last.peak_bytes is not None:
            here = (last.batch, last.peak_bytes)
            expected = foretold(before, here, batch)
            if limit_bytes is not None and expected > limit_bytes:
                yield Tried(batch=batch, fits=False, peak_bytes=expected)
                return
            before = here
        last = probe(batch)
        yield last
        if not last.fits:
            return
        slower = 0 if last.rows_per_second > best * (1 + ALIKE) else slower + 1
        best = max(best, last.rows_per_second)
        if slower == STOP_AFTER:
            return


def foretold(one: tuple[int, int], other: tuple[int, int], batch: int) -> int:
    """Bytes at ``batch`` rows on the line through two points of (rows, bytes); never fewer than at the second."""
    slope = max(0.0, (other[1] - one[1]) / (other[0] - one[0]))
    return int(other[1] + slope * (batch - other[0]))


def best(tried: list[Tried]) -> Tried | None:
    """The smallest of those that are as fast as the fastest: it takes the least memory. ``None`` if none fits."""
    fitting = [each for each in tried if each.fits]
    fastest = max((each.rows_per_second for each in fitting), default=0.0)
    return next((each for each in fitting if each.rows_per_second >= fastest * (1 - ALIKE)), None)
