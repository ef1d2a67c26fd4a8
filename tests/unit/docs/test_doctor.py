"""docs/reference/doctor.md lists the checks that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.unit.docs import pages

CLI = Path(__file__).parents[3] / "daemon" / "finetuned" / "cli"
VERDICTS = {"ok", "warn", "fail"}


def names() -> set[str]:
    """The first argument of each verdict in the source: a text, or a variable that holds one."""
    found: set[str] = set()
    for module in ("checks", "doctor", "gpu_check", "state_checks"):
        tree = ast.parse((CLI / f"{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in VERDICTS:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    found.add(str(first.value))
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                is_name = node.targets[0].id == "name" and isinstance(node.value, ast.Constant)
                found |= (
                    {str(node.value.value)} if is_name and isinstance(node.value, ast.Constant) else set()
                )
    return found


def test_each_check_has_its_row_and_each_row_its_check() -> None:
    page = (pages.DOCS / "reference" / "doctor.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z ]+)` \|", page, re.MULTILINE)) == names()
