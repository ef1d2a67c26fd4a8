"""The pages of the documentation, as the tests here read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of the languages, in order."""
    return [text for language, text in _BLOCK.findall(page.read_text("utf-8")) if language in languages]


def every_block(*languages: str) -> list[tuple[str, str]]:
    """Page and text of each such block of the documentation."""
    return [(name(page), text) for page in PAGES for text in blocks(page, *languages)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text("utf-8"))
