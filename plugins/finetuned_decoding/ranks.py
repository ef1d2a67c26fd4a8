"""Which rows of a batch move when others have ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def close_ranks(going: Sequence[int]) -> list[int]:
    """The rows that go on, in an order in which as few as can be move: the last ones take the places that became free."""
    stay = set(going).intersection(range(len(going)))
    last = reversed(going)
    return [at if at in stay else next(last) for at in range(len(going))]
