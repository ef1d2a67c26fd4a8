"""Query parameters, without a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from pydantic import Field

from finetuned.api.lists import listing
from finetuned.api.parameters import (
    LARGEST_SEQ,
    EventTypes,
    Flag,
    Limit,
    Names,
    Query,
    Whole,
    read,
    whole_number,
)
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.states import JobState


class ThingsQuery(Query):
    limit: Limit = 50
    after: Whole | None = Field(default=None, ge=0, le=LARGEST_SEQ)
    name: str | None = None
    state: JobState | None = None
    stream: Flag = False
    types: EventTypes | None = None
    names: Names | None = None


class NoneQuery(Query):
    pass


class NeedyQuery(Query):
    name: str


def things(text: str) -> ThingsQuery:
    return read(
        ThingsQuery,
        MultiDict([(pair.partition("=")[0], pair.partition("=")[2]) for pair in text.split("&") if pair]),
    )


def test_parameters_are_read_as_what_they_are() -> None:
    given_ones = things("limit=7&name=x&types=job.queued,job.failed&stream=true&names=a, b&state=running")
    assert given_ones.limit == 7
    assert given_ones.name == "x"
    assert given_ones.types == frozenset({"job.queued", "job.failed"})
    assert given_ones.names == frozenset({"a", "b"})
    assert given_ones.stream is True
    assert given_ones.state is JobState.RUNNING


def test_absent_parameters_are_the_default() -> None:
    assert things("") == ThingsQuery()


def test_an_empty_value_is_a_value() -> None:
    assert things("name=").name == ""
    for text in ("state=", "limit=", "types=", "stream="):
        with pytest.raises(InvalidRequestError):
            things(text)


def test_an_unknown_parameter_is_refused_with_the_nearest_or_all_known_ones() -> None:
    with pytest.raises(InvalidRequestError, match=r"Did you mean 'limit'") as refusal:
        things("limti=3")
    assert refusal.value.param == "limti"
    assert refusal.value.stable_code == "unknown_parameter"
    with pytest.raises(InvalidRequestError, match="The parameters are limit, after, name"):
        things("zzz=3")
    with pytest.raises(InvalidRequestError, match="takes none"):
        read(NoneQuery, MultiDict({"zzz": "3"}))


def test_a_parameter_that_is_given_twice_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="limit is given more than once; give it once") as refusal:
        things("limit=3&limit=3")
    assert refusal.value.param == "limit"


def test_a_parameter_that_is_needed_is_missed_by_name() -> None:
    with pytest.raises(InvalidRequestError, match=r"^name is missing; give it a value\.$") as refusal:
        read(NeedyQuery, MultiDict())
    assert refusal.value.stable_code == "missing_parameter"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit=0", "limit must be a whole number from 1 to 1000; got '0'."),
        ("limit=1001", "limit must be a whole number from 1 to 1000; got '1001'."),
        ("limit=x", "limit must be a whole number from 1 to 1000; got 'x'."),
        ("after=-1", f"after must be a whole number from 0 to {LARGEST_SEQ}; got '-1'."),
        ("stream=yes", "stream must be true or false; got 'yes'."),
        ("state=runing", "state: 'runing' is not known. Did you mean 'running'"),
        ("types=job.faild", "types: 'job.faild' is not known. Did you mean 'job.failed' or"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_may_be(text: str, message: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        things(text)
    assert refusal.value.message.startswith(message)
    assert refusal.value.param == text.partition("=")[0]


@pytest.mark.parametrize("value", ["-1", "+1", " 1", "1.0", "1e3", "0x1", "\u0663", "1" * 5000, "x"])
def test_what_is_no_whole_number_is_refused_by_name(value: str) -> None:
    for refused in (
        lambda: things(f"after={value}"),
        lambda: whole_number("after", value, lowest=0, highest=LARGEST_SEQ),
    ):
        with pytest.raises(InvalidRequestError, match=r"^after must be a whole number from 0 to") as refusal:
            refused()
        assert refusal.value.param == "after"
        assert len(refusal.value.message) < 200


@given(st.integers(min_value=-5, max_value=1010))
def test_a_number_is_taken_exactly_if_it_is_in_range(value: int) -> None:
    if 1 <= value <= 1000:
        assert things(f"limit={value}").limit == value
    else:
        with pytest.raises(InvalidRequestError):
            things(f"limit={value}")


def test_a_list_says_where_it_begins_and_ends() -> None:
    items = [{"id": "a"}, {"id": "b"}]
    assert listing(items, has_more=True) == {
        "object": "list", "data": items, "has_more": True, "first_id": "a", "last_id": "b",
        "next_after": "b",
    }  # fmt: skip
    empty = listing(list[dict[str, str]]())
    assert (empty["first_id"], empty["last_id"], empty["next_after"]) == (None, None, None)
    assert listing([{"seq": 3}], key="seq", next_after=9)["next_after"] == 9
