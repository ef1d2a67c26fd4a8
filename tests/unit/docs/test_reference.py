from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_generator", REFERENCE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["events.md", "states.md"])
def test_the_generated_reference_says_what_the_code_says(page: str) -> None:
    expected = generator().PAGES[page]()
    actual = (REFERENCE / page).read_text(encoding="utf-8")
    assert actual == expected, f"{page} is out of date; make reference writes it anew"
