"""When a delivery that failed is tried again, and when no more: the schedule of Standard Webhooks. Pure."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

MINUTE, HOUR = 60.0, 3600.0
#: seconds before the second try, the third, …: ten tries in all, the last after three days
DELAYS_S: Final = (
    5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR,
)  # fmt: skip
TRIES: Final = len(DELAYS_S) + 1
JITTER: Final = 0.1  # of a delay, added at most: what failed at once is not tried again at once
LONGEST_S: Final = 24 * HOUR  # that a receiver may ask us to wait
PATIENT: Final = frozenset({429, 503})  # statuses whose Retry-After is heeded


def delay_s(tries: int, *, jitter: float, retry_after_s: float | None = None) -> float | None:
    """Seconds until the next try after so many failed; ``None`` when there is none. ``jitter`` is from 0 to 1.

    A receiver that says when to come back is not asked earlier.
    """
    if tries > len(DELAYS_S):
        return None
    planned = DELAYS_S[tries - 1] * (1 + JITTER * jitter)
    return max(planned, min(retry_after_s or 0.0, LONGEST_S))


def left_s(tries: int, since_failure_s: float) -> float:
    """Seconds left of a delay that began before this daemon did; a clock that was set cannot make it longer."""
    whole = DELAYS_S[min(tries, len(DELAYS_S)) - 1]
    return min(max(whole - since_failure_s, 0.0), whole)


def retry_after_s(header: str | None, *, now: float) -> float | None:
    """What ``Retry-After`` says in seconds, at the Unix time ``now``; ``None`` if it says nothing readable."""
    if header is None or len(header) > 40:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0.0, aware.timestamp() - now)
    except (ValueError, OverflowError):
        return None
