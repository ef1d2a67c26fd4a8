from __future__ import annotations

import pytest

from finetuned_events import Upcasters


def test_steps_are_chained_to_the_newest_version() -> None:
    upcasters = Upcasters(
        {("a", 1): lambda data: {**data, "two": 2}, ("a", 2): lambda data: {**data, "three": 3}}
    )
    assert upcasters.upcast("a", 1, {"one": 1}) == (3, {"one": 1, "two": 2, "three": 3})
    assert upcasters.upcast("a", 2, {}) == (3, {"three": 3})
    assert upcasters.upcast("a", 3, {}) == (3, {})
    assert upcasters.upcast("b", 1, {"x": 1}) == (1, {"x": 1})


def test_two_steps_from_one_version_are_a_mistake() -> None:
    upcasters = Upcasters()
    upcasters.register("a", 1)(dict)
    with pytest.raises(ValueError, match="upcaster already"):
        upcasters.register("a", 1)(dict)


def test_no_steps_are_false() -> None:
    assert not Upcasters()
    assert Upcasters({("a", 1): dict})
