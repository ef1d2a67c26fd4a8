"""Request bodies, without a connection."""

from __future__ import annotations

import pytest

from finetuned.api import body
from finetuned.domain.errors import InvalidRequestError


class Key(str):
    """A key that counts how often keys are compared."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Key.compared += 1
        return str.__eq__(self, other)


def test_a_key_that_comes_twice_is_found_among_many_without_comparing_each_with_each() -> None:
    keys = [Key(f"k{number}") for number in range(5000)]
    with pytest.raises(InvalidRequestError, match="'k4999' twice in one object; leave one out") as caught:
        body._unique([(key, 0) for key in (*keys, Key("k4999"))])
    assert caught.value.stable_code == "invalid_json"
    assert Key.compared < 5000
