"""Lists, as every list route answers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from finetuned import wire
from finetuned.domain.errors import InvalidRequestError

Item = TypeVar("Item")


def listing(
    items: list[Item], *, has_more: bool = False, key: str = "id", next_after: str | int | None = None
) -> wire.Page[Item]:
    """A page of ``items``. The next page's ``after`` is ``next_after``: by default the last item's ``key``."""
    last = _key(items[-1], key) if items else None
    return {
        "object": "list",
        "data": items,
        "has_more": has_more,
        "first_id": _key(items[0], key) if items else None,
        "last_id": last,
        "next_after": last if next_after is None else next_after,
    }


def page_of(
    items: list[Item],
    position: Callable[[Item], str],
    *,
    after: str | None,
    limit: int | None,
    key: str = "id",
) -> wire.Page[Item]:
    """A page of a list that is in memory. ``position`` names an item in the list, and is what ``after`` takes.
    Without a ``limit`` it has all that is left.

    Raises ``InvalidRequestError`` if no item is named ``after``.
    """
    first = 0
    if after is not None:
        first = 1 + next((at for at, item in enumerate(items) if position(item) == after), -2)
    if first < 0:
        raise InvalidRequestError(
            f"after: there is no {after!r} in this list (any more); give the next_after of the page before, or begin"
            " again without it.",
            param="after",
        )
    stop = len(items) if limit is None else first + limit
    page = items[first:stop]
    return listing(
        page,
        has_more=stop < len(items),
        key=key,
        next_after=position(page[-1]) if page else None,
    )


def _key(item: Any, key: str) -> str | int | None:
    value: str | int | None = item[key]
    return value
