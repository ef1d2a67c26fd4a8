"""Query parameters and page shapes, without a connection."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from finetuned.api.paging import LARGEST_SEQ, Parameters, listing, whole_number
from finetuned.domain.errors import InvalidRequestError


def parameters(query: str, *known: str) -> Parameters:
    return Parameters(make_mocked_request("GET", f"/v1/things?{query}"), *known)


def test_parameters_are_read_as_what_they_are() -> None:
    given_ones = parameters(
        "limit=7&name=x&types=a,b&stream=true&empty=", "limit", "name", "types", "stream", "empty"
    )
    assert given_ones.limit(50) == 7
    assert given_ones.text("name") == "x"
    assert given_ones.choices("types", ["a", "b", "c"]) == frozenset({"a", "b"})
    assert given_ones.flag("stream") is True
    assert given_ones.text("empty") is None


def test_absent_parameters_are_none_or_the_default() -> None:
    absent = parameters("", "limit", "state")
    assert absent.limit(50) == 50
    assert absent.choice("state", ["a"]) is None
    assert absent.choices("state", ["a"]) is None
    assert absent.flag("state") is None
    assert absent.integer("state", lowest=0, highest=1) is None


def test_an_unknown_parameter_is_refused_with_the_nearest_or_all_known_ones() -> None:
    with pytest.raises(InvalidRequestError, match=r"Did you mean 'limit'") as refusal:
        parameters("limti=3", "limit", "after")
    assert refusal.value.param == "limti"
    with pytest.raises(InvalidRequestError, match="The parameters are limit, after"):
        parameters("zzz=3", "limit", "after")
    with pytest.raises(InvalidRequestError, match="takes none"):
        parameters("zzz=3")


@pytest.mark.parametrize("value", ["-1", "+1", " 1", "1.0", "1e3", "0x1", "\u0663", "1" * 5000, "x"])
def test_what_is_no_whole_number_is_refused_by_name(value: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^after must be a whole number from 0 to") as refusal:
        whole_number("after", value, lowest=0, highest=LARGEST_SEQ)
    assert refusal.value.param == "after"
    assert len(refusal.value.message) < 200


@given(st.integers(min_value=-5, max_value=20))
def test_a_number_is_taken_exactly_if_it_is_in_range(value: int) -> None:
    if 1 <= value <= 9:
        assert whole_number("limit", str(value), lowest=1, highest=9) == value
    else:
        with pytest.raises(InvalidRequestError):
            whole_number("limit", str(value), lowest=1, highest=9)


def test_a_list_says_where_it_begins_and_ends() -> None:
    items = [{"id": "a"}, {"id": "b"}]
    assert listing(items, has_more=True) == {
        "object": "list", "data": items, "has_more": True, "first_id": "a", "last_id": "b",
        "next_after": "b",
    }  # fmt: skip
    ends = {"first_id": None, "last_id": None, "next_after": None}
    assert listing([]) == {"object": "list", "data": [], "has_more": False} | ends
    assert listing([{"seq": 3}], key="seq", next_after=9)["next_after"] == 9
