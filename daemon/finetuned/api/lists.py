"""Lists, as every list route answers them."""

from __future__ import annotations

from typing import Any, TypeVar

from finetuned import wire

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


def _key(item: Any, key: str) -> str | int | None:
    value: str | int | None = item[key]
    return value
