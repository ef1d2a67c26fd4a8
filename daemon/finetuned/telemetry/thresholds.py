"""When something that fills up is worth an alert: once each time that it gets too full. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import NamedTuple

HIGH = 0.95  # of what there is: an alert is raised above …
LOW = 0.90  # … and may be raised again once it was below


class Fill(NamedTuple):
    """How full something is, in bytes. ``key`` tells it apart from everything else; ``what`` says it in words."""

    key: Hashable
    used: float
    of: float
    what: str


def is_high(fill: Fill) -> bool:
    """Whether it is above the threshold."""
    return bool(fill.of) and fill.used > HIGH * fill.of


class Crossings:
    """Remembers what is above its threshold."""

    def __init__(self) -> None:
        self._high: set[Hashable] = set()

    def crossed(self, fills: Iterable[Fill]) -> list[Fill]:
        """Those of all there is that have crossed the threshold since they were looked at last."""
        found, high = [], set()
        for each in fills:
            was_high = each.key in self._high
            if is_high(each) or (was_high and each.used >= LOW * each.of):
                high.add(each.key)
                if not was_high:
                    found.append(each)
        self._high = high  # what was not looked at is gone
        return found

    def forget(self, key: Hashable) -> None:
        """Nobody could be told of it: it crosses the threshold again at the next look, if it is still above."""
        self._high.discard(key)

    @property
    def high(self) -> Collection[Hashable]:
        """What is above its threshold."""
        return frozenset(self._high)
