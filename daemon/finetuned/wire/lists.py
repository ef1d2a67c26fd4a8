"""Lists and deletions, as every route answers them."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from typing_extensions import TypedDict

Json = Any
Item = TypeVar("Item")


class Page(TypedDict, Generic[Item]):
    """One page of a list. ``next_after`` is what the next page's ``after`` takes."""

    object: Literal["list"]
    data: list[Item]
    has_more: bool
    first_id: str | int | None
    last_id: str | int | None
    next_after: str | int | None


class Deleted(TypedDict):
    """What was named is gone."""

    id: str
    object: str
    deleted: bool
