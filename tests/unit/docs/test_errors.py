"""Each code of an error is in the reference, with its status and exit code, and named in a test."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import finetuned
from finetuned.client.errors import error_from
from finetuned.domain.errors import FinetunedError

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "errors.md"
ROW = re.compile(r"^\| `(\w+)` \| ([\d, ]+|-) \| ([\d, ]+|-) \| (.+) \| (.+) \|$", re.MULTILINE)
HERE = {"error_codes.py", "test_errors.py"}

sys.path.insert(0, str(Path(__file__).parent))
error_codes = importlib.import_module("error_codes")
sys.path.pop(0)
CODES: dict[str, set[str]] = error_codes.codes()
OWNERS: dict[str, set[str]] = error_codes.owners()


def rows() -> dict[str, tuple[str, str]]:
    """Status and exit code by code."""
    return {row[1]: (row[2], row[3]) for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))}


def test_the_reference_has_exactly_the_codes_that_the_source_gives_out() -> None:
    listed = [row[1] for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))]
    assert len(listed) == len(set(listed))
    assert set(listed) - set(CODES) - {"usage"} == set(), (
        "docs/reference/errors.md lists what is never given out"
    )
    assert set(CODES) - set(listed) == set(), "docs/reference/errors.md lacks these"


def _classes(root: type[FinetunedError]) -> Iterator[type[FinetunedError]]:
    yield root
    for below in root.__subclasses__():
        yield from _classes(below)


def classes() -> list[type[FinetunedError]]:
    """All errors that are told to users."""
    for module in pkgutil.walk_packages(finetuned.__path__, "finetuned."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [each for each in _classes(FinetunedError) if each.__module__.startswith("finetuned.")]


def test_the_reference_says_what_the_classes_say() -> None:
    listed = rows()
    for each in classes():
        status, exit_code = listed[each.code]
        if "code" in vars(each):
            # Others may give out the same code with another status: the class's own is among those listed.
            assert str(each.status) in status.split(", ") or status == "-", each.__name__
            assert str(each.exit_code) in exit_code.split(", "), each.__name__


def test_the_command_line_ends_as_the_reference_says() -> None:
    for code, (status, exit_code) in rows().items():
        if "-" in {status, exit_code}:
            continue
        body = {"error": {"code": code, "message": "m", "param": None, "type": "t"}}
        for each, ends in zip(status.split(", "), exit_code.split(", "), strict=True):
            error = error_from(int(each), body)
            assert (error.stable_code, str(error.exit_code)) == (code, ends)


@pytest.mark.parametrize("code", sorted(CODES))
def test_each_code_is_named_in_a_test(code: str) -> None:
    """By itself, or by the class whose code it is."""
    names = {f'"{code}"', *OWNERS.get(code, ())}
    tests = (path for path in (ROOT / "tests").rglob("*.py") if path.name not in HERE)
    texts = (path.read_text(encoding="utf-8") for path in tests)
    assert any(name in text for text in texts for name in names), sorted(CODES[code])
