"""Pages of lists that are in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from finetuned.api.lists import page_of
from finetuned.domain.errors import InvalidRequestError

ITEMS = [{"id": letter} for letter in "abcde"]
NAME: Callable[[dict[str, str]], str] = lambda each: each["id"]  # noqa: E731 - a function of one line


def test_the_pages_of_a_list_have_each_item_once() -> None:
    seen: list[str] = []
    after: str | None = None
    while True:
        page = page_of(ITEMS, NAME, after=after, limit=2)
        seen += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = str(page["next_after"])
    assert seen == list("abcde")


def test_a_page_that_ends_with_the_list_has_no_more() -> None:
    assert not page_of(ITEMS, NAME, after=None, limit=5)["has_more"]
    assert page_of(ITEMS, NAME, after="e", limit=5)["data"] == []


def test_a_place_that_is_not_in_the_list_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="begin again") as told:
        page_of(ITEMS, NAME, after="x", limit=5)
    assert told.value.param == "after"
