"""README promises nothing without a test that is there, and shows a picture that fetches nothing."""

from __future__ import annotations

import ast
import re

import pytest
from tests.unit.docs import pages

README = (pages.ROOT / "README.md").read_text("utf-8")
PROMISES = re.findall(r"^\d\. (\*\*.*?)(?=^\d\. |^\S)", README, re.MULTILINE | re.DOTALL)
PICTURE = pages.DOCS / "assets" / "finetune.svg"


def functions(path: str) -> set[str]:
    tree = ast.parse((pages.ROOT / path).read_text("utf-8"))
    return {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_there_are_seven_promises() -> None:
    assert len(PROMISES) == 7


@pytest.mark.parametrize("promise", PROMISES, ids=lambda text: str(text)[2:40])
def test_each_promise_names_tests_that_are_there(promise: str) -> None:
    shown = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
    assert len(shown) >= 2
    assert [name for path, name in shown if name not in functions(path)] == []


def test_each_page_but_the_single_decisions_is_linked() -> None:
    folders = ("tutorial", "how-to", "reference", "explanation")
    there = [pages.name(page) for folder in folders for page in sorted((pages.DOCS / folder).glob("*.md"))]
    assert [page for page in there if f"]({page})" not in README] == []


def test_the_picture_is_there_fetches_nothing_and_shows_no_path_of_whoever_drew_it() -> None:
    assert "docs/assets/finetune.svg" in README
    picture = PICTURE.read_text("utf-8")
    assert not re.search(r"""url\(["']?https?:|href=["']http|<script""", picture)
    assert not re.search(r"/(home|root|work|Users)/", picture)


def test_the_comparison_says_of_which_day_it_is() -> None:
    comparison = (pages.DOCS / "explanation" / "comparison.md").read_text("utf-8")
    (day,) = re.findall(r"As of (\d{4}-\d\d-\d\d)", README)
    assert f"**{day}**" in comparison
    numbers = set(re.findall(r"\[(\d+)\]", comparison))
    sources = re.findall(r"^(\d+)\. ", comparison.partition("## Sources")[2], re.MULTILINE)
    assert sorted(map(int, numbers)) == sorted(map(int, sources))
