"""The page on reliability names tests that are there, all scenarios of the harness, and README's promises."""

from __future__ import annotations

import re

from tests.chaos.run import SCENARIOS
from tests.unit.docs import pages
from tests.unit.docs.test_readme import PROMISES, functions

PAGE = (pages.DOCS / "reliability.md").read_text("utf-8")


def named(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text))


def test_each_test_that_it_names_is_there() -> None:
    assert len(named(PAGE)) > 20
    assert [f"{path}::{name}" for path, name in named(PAGE) if name not in functions(path)] == []


def test_it_names_each_test_of_the_readmes_promises() -> None:
    assert {test for promise in PROMISES for test in named(promise)} <= named(PAGE)


def test_it_describes_each_scenario_of_the_harness_with_its_full_number() -> None:
    rows = dict(
        re.findall(r"^\| `([\w-]+)` \| (.*?) \|", PAGE.partition("## How to have it again")[2], re.MULTILINE)
    )
    assert list(rows) == [scenario.name for scenario in SCENARIOS]
    for scenario in SCENARIOS:
        if scenario.name not in {"kill-orders", "mixed"}:  # whose numbers are orders and seconds
            assert f"{scenario.full:,}" in rows[scenario.name]
