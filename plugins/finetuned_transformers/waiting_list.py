"""Rows that wait for a place."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Sequence
from itertools import count

from finetuned_transformers.rows import Row


class WaitingList:
    """By their priority, and then in the order of their arrival. One thread adds, another takes."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._arrivals = count(1)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(not row.ended for row in tuple(self._rows))

    def add(self, rows: Sequence[Row]) -> None:
        """Rows that have just come, or that have to wait again: those have the turn that they had."""
        with self._lock:
            for row in rows:
                row.arrival = row.arrival or next(self._arrivals)
                insort(self._rows, row, key=_turn)

    def first(self) -> Row | None:
        """Whose turn it is. Those that have ended are forgotten."""
        with self._lock:
            while self._rows and self._rows[0].ended:
                del self._rows[0]
            return self._rows[0] if self._rows else None

    def take(self, row: Row) -> Row:
        """It waits no more."""
        with self._lock:
            self._rows.remove(row)
        return row

    def take_all(self) -> list[Row]:
        """Nobody waits any more."""
        with self._lock:
            rows, self._rows = self._rows, []
        return rows


def _turn(row: Row) -> tuple[int, int]:
    return -row.priority, row.arrival
