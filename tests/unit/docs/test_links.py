"""Every link of the documentation leads somewhere, every file and target that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.unit.docs import pages

LINK = re.compile(r"\[[^\[\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FILE = re.compile(r"`((?:\.ci|bench|daemon|docs|events|plugins|systemd|tests)/[\w./-]*[\w/])`")
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
MODULE = re.compile(r"`(\w+)/([\w/]+\.(?:py|sql))`")
MADE = {line.rstrip("/") for line in (pages.ROOT / ".gitignore").read_text("utf-8").splitlines()}
SOURCES = [pages.ROOT / folder for folder in ("daemon", "daemon/finetuned", "events", "plugins")]
TARGET = re.compile(r"`make ([a-z][a-z-]*)")
TYPED_TARGET = re.compile(r"^(?:\$ )?make ([a-z][a-z-]*)", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found: set[str] = set()
    for heading in HEADING.findall(pages.prose(page)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        repeated = sum(
            each == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", each) is not None for each in found
        )
        found.add(f"{slug}-{repeated}" if repeated else slug)
    return found


def links() -> list[tuple[Path, str]]:
    found = [(page, target) for page in pages.PAGES for target in LINK.findall(pages.prose(page))]
    return [(page, target) for page, target in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize(
    ("page", "target"), links(), ids=lambda each: str(each).removeprefix(f"{pages.ROOT}/")
)
def test_a_link_leads_to_a_file_and_its_anchor_to_a_heading(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    assert found.is_relative_to(pages.ROOT)
    assert found.exists(), f"{target} is not there"
    if anchor:
        assert anchor in anchors(found), f"{pages.name(found)} has no heading {anchor!r}"


def test_a_heading_gives_the_anchor_that_github_gives_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# `finetune log backup`: a *copy*, checked\n## The end\n## The end\n", "utf-8")
    assert anchors(page) == {"finetune-log-backup-a-copy-checked", "the-end", "the-end-1"}


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_each_file_and_folder_that_a_page_names_is_there(page: Path) -> None:
    own = "".join(pages.blocks(page, ""))  # the listing of a package that the page has its reader write
    named = [path for path in FILE.findall(pages.prose(page)) if path not in own]
    there = [path for path in named if path.rstrip("/") not in MADE]  # what a command makes is not in a clone
    assert [path for path in there if not (pages.ROOT / path).exists()] == []


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_each_module_that_a_page_names_by_its_package_is_there(page: Path) -> None:
    named = [
        (package, module)
        for package, module in MODULE.findall(pages.prose(page))
        if any((root / package).is_dir() for root in SOURCES)
    ]
    assert [each for each in named if not any((root / each[0] / each[1]).is_file() for root in SOURCES)] == []


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_each_test_that_a_page_names_is_there(page: Path) -> None:
    missing = [
        f"{path}::{name}"
        for path, name in NAMED_TEST.findall(page.read_text("utf-8"))
        if not re.search(rf"^ *(?:async )?def {name}\(", (pages.ROOT / path).read_text("utf-8"), re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_each_make_target_that_a_page_names_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (pages.ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = TARGET.findall(pages.prose(page))
    typed = [target for text in pages.blocks(page, "sh", "console") for target in TYPED_TARGET.findall(text)]
    assert {*named, *typed} <= targets


def test_each_target_of_the_makefile_is_in_its_help() -> None:
    text = (pages.ROOT / "Makefile").read_text("utf-8")
    phony = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    told = set(re.findall(r'@echo "make ([a-z-]+)', text))
    assert told | {"test-fast", "format", "clean"} == set(phony)
