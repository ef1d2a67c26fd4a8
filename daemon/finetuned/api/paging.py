"""Query parameters, checked: an unknown or unreadable one is refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from finetuned.domain.errors import InvalidRequestError
from finetuned.submission import nearest

LARGEST_PAGE = 1000
LARGEST_SEQ = 2**63 - 1
FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Parameters:
    """The query parameters of a request. Raises ``InvalidRequestError`` for one that is not among ``known``."""

    def __init__(self, request: web.Request, *known: str) -> None:
        self._given = request.query
        for name in self._given:
            if name not in known:
                listed = f" The parameters are {', '.join(known)}." if known else " This route takes none."
                hint = nearest(name, known) or listed
                raise InvalidRequestError(
                    f"{name} is not a known query parameter.{hint}", param=name, code="unknown_parameter"
                )
            if len(self._given.getall(name)) > 1:
                raise InvalidRequestError(f"{name} is given more than once; give it once.", param=name)

    def text(self, name: str) -> str | None:
        """A parameter as it is; ``None`` if absent or empty."""
        return self._given.get(name) or None

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """One of ``choices``."""
        value = self.text(name)
        return None if value is None else _chosen(name, value, list(choices))

    def choices(self, name: str, choices: Iterable[str]) -> frozenset[str] | None:
        """Some of ``choices``, separated by commas."""
        value = self.text(name)
        if value is None:
            return None
        known = list(choices)
        return frozenset(_chosen(name, each.strip(), known) for each in value.split(","))

    def integer(self, name: str, *, lowest: int, highest: int) -> int | None:
        """A whole number in the given range, both ends included."""
        value = self.text(name)
        return None if value is None else whole_number(name, value, lowest=lowest, highest=highest)

    def limit(self, default: int) -> int:
        """How many items a page has."""
        return self.integer("limit", lowest=1, highest=LARGEST_PAGE) or default

    def flag(self, name: str) -> bool | None:
        """``true`` or ``false``."""
        value = self.text(name)
        if value is None:
            return None
        if value not in FLAGS:
            raise InvalidRequestError(f"{name} must be true or false; got {value!r}.", param=name)
        return FLAGS[value]


def whole_number(name: str, value: str, *, lowest: int, highest: int) -> int:
    """``value`` as a number. Raises ``InvalidRequestError``."""
    if value.isascii() and value.isdigit() and len(value) <= 19 and lowest <= int(value) <= highest:
        return int(value)
    raise InvalidRequestError(
        f"{name} must be a whole number from {lowest} to {highest}; got {value[:40]!r}.", param=name
    )


def listing(
    items: list[dict[str, Any]], *, has_more: bool = False, key: str = "id", next_after: int | None = None
) -> dict[str, Any]:
    """A list as every list route answers it. The next page's ``after`` is ``next_after``: by default the last item's key."""
    last = items[-1][key] if items else None
    return {
        "object": "list",
        "data": items,
        "has_more": has_more,
        "first_id": items[0][key] if items else None,
        "last_id": last,
        "next_after": last if next_after is None else next_after,
    }


def _chosen(name: str, value: str, choices: list[str]) -> str:
    if value in choices:
        return value
    hint = nearest(value, choices) or f" It may be {', '.join(choices)}."
    raise InvalidRequestError(f"{name}: {value[:80]!r} is not known.{hint}", param=name)
