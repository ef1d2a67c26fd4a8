"""Each test that the threat model names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAMED = sorted(
    set(
        re.findall(
            r"`(tests/[\w/]+\.py)::(test_\w+)`",
            (ROOT / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8"),
        )
    )
)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_is_there(file: str, name: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^ *(?:async )?def {name}\(", source, re.MULTILINE), f"{file} has no {name}"


def test_the_threat_model_names_tests() -> None:
    assert len(NAMED) > 30
