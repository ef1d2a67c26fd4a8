"""Long looks at files: a few at a time, apart from all other work, and given up when nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable

from anyio import CapacityLimiter

THREADS = 2  # that look at once, so that submissions never wait for one


class AbandonedError(Exception):
    """Whoever asked has gone."""


#: raises ``AbandonedError`` when nobody waits for the answer any more; called from threads
Check = Callable[[], None]


def always() -> None:
    """The check of those who wait whatever happens."""


def few() -> CapacityLimiter:
    """What limits the threads that look."""
    return CapacityLimiter(THREADS)
