"""The decisions are numbered without gaps and listed under their titles."""

from __future__ import annotations

import re

from tests.unit.docs import pages

DECISIONS = pages.DOCS / "decisions"


def test_the_list_has_each_record_with_its_title_and_nothing_else() -> None:
    listed = re.findall(
        r"^\| \[(\d{4})\]\((.+?)\) \| (.+) \|$", (DECISIONS / "README.md").read_text("utf-8"), re.MULTILINE
    )
    records = []
    for path in sorted(DECISIONS.glob("[0-9]*.md")):
        heading = path.read_text("utf-8").partition("\n")[0]
        records.append((heading[2:6], path.name, heading[7:]))
    assert listed == records
    assert [int(number) for number, _, _ in records] == list(range(1, len(records) + 1))
