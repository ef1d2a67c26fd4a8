"""The newest committed events in memory, so that a thousand followers at the head do not read the file each."""

from __future__ import annotations

from finetuned_events.event import Event

__all__ = ("Ring",)

_EVENTS = 4096
_BYTES = 8 << 20


class Ring:
    """A bounded window on the end of the log; positions have no gaps, so a position is an index."""

    def __init__(self, head: int, *, events: int = _EVENTS, size: int = _BYTES) -> None:
        self._first = head + 1  # position of the oldest event held, or of the next one to come
        self._events: list[Event] = []
        self._sizes: list[int] = []
        self._total = 0
        self._max_events = events
        self._max_bytes = size

    def extend(self, events: list[Event], sizes: list[int]) -> None:
        """Add newly committed events with the bytes of data in each; forget the oldest beyond the bounds."""
        self._events += events
        self._sizes += sizes
        self._total += sum(sizes)
        # Cut in halves, so that the cost of moving the list is spread over many events.
        if len(self._events) > 2 * self._max_events or self._total > 2 * self._max_bytes:
            self._cut()

    def since(self, after: int) -> tuple[Event, ...] | None:
        """Return the events beyond `after`; None if some of them are no longer here."""
        if after + 1 < self._first:
            return None

        return tuple(self._events[after + 1 - self._first :])

    def _cut(self) -> None:
        keep, size = 0, 0
        for length in reversed(self._sizes[-self._max_events :]):
            size += length
            if size > self._max_bytes:
                break
            keep += 1

        dropped = len(self._events) - keep
        self._total -= sum(self._sizes[:dropped])
        del self._events[:dropped], self._sizes[:dropped]
        self._first += dropped
