"""What the explanations say in figures and names is what the benchmarks and the code say."""

from __future__ import annotations

import re

from tests.unit.docs import pages

from finetuned.domain import tries

CRASHES = (pages.DOCS / "explanation" / "what-a-crash-costs.md").read_text("utf-8")
FENCING = (pages.DOCS / "explanation" / "how-fencing-works.md").read_text("utf-8")
BENCHMARKS = (pages.DOCS / "benchmarks.md").read_text("utf-8")


def test_each_figure_of_what_a_crash_costs_is_one_of_the_benchmarks() -> None:
    figures = re.findall(r"\*\*([\d.,]+(?: \w+)?)\*\*", CRASHES)
    assert len(figures) >= 4
    assert [
        figure for figure in figures if not re.search(rf"(?<![\d.,]){re.escape(figure)}", BENCHMARKS)
    ] == []
    (races,) = re.findall(r"([\d,]+) races had one winner each", FENCING)
    assert re.search(rf"gives up on[^.]*?{races}: one winner\s+each", BENCHMARKS)


def test_the_pauses_before_another_try_are_those_of_the_code() -> None:
    first, second = ((tries.backoff_s(done, 0.0), tries.backoff_s(done, 1.0)) for done in (1, 2))
    longest = tries.BACKOFF_LONGEST_S / 60
    assert f"after {first[0]:g} to {first[1]:g} s, then {second[0]:g} to {second[1]:g} s" in CRASHES
    assert f"up to {longest:g} minutes" in CRASHES


def test_the_tutorials_times_are_those_of_the_benchmarks() -> None:
    tutorial = (pages.DOCS / "tutorial" / "first-model.md").read_text("utf-8")
    times = re.findall(r"demo\s+took (\d+ min \d+ s), and (\d+) minutes with the installation", tutorial)
    ((demo, installed),) = times
    assert demo in BENCHMARKS
    assert f"{installed} min 0 s with the installation" in BENCHMARKS
