"""The lock agrees with the constraints and the extras, and the audit finds what it is there for."""

from __future__ import annotations

import importlib.util
import itertools
import json
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
HASH = "--hash=sha256:" + "0" * 64


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_has_every_constraint_in_its_version_with_hashes_and_nothing_else(audit: ModuleType) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert audit.unpinned(lock, constraints, {}) == [], "run make lock"
    assert "://" not in lock  # no index is named


def test_each_dependency_of_ours_is_locked(audit: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(itertools.chain(project["dependencies"], *project["optional-dependencies"].values()))
    names = {audit.canonical(audit.re.match(r"[\w.-]+", each)[0]) for each in wanted}
    locked = audit.pins((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert names - locked.keys() == {"torch"}


def test_what_differs_from_the_lock_is_found(audit: ModuleType) -> None:
    lock = f"a==1 \\\n    {HASH}\nb-c==2 ; python_version > '3' \\\n    {HASH}\nd==3\n"
    constraints = "a==1\nB_c==2\nd==3\ntorch==2.13.0\n"
    installed = {"a": "1", "b-c": "2", "torch": "2.13.0+cpu", "pip": "26", "nvidia-cublas": "13"}
    assert audit.unpinned(lock, constraints, installed) == ["d==3 has no hash in requirements.lock"]
    found = audit.unpinned(
        lock, constraints.replace("a==1", "a==2"), {**installed, "e": "5", "torch": "2.12.0"}
    )
    assert sorted(found) == [
        "a: constraints.txt pins 2, requirements.lock 1",
        "d==3 has no hash in requirements.lock",
        "e is installed in 5 and pinned to None",
        "torch is installed in 2.12.0 and pinned to 2.13.0",
    ]


def test_a_release_that_was_taken_back_is_found_and_a_missing_report_is_said(
    audit: ModuleType, tmp_path: Path
) -> None:
    report = tmp_path / "installed.json"
    assert audit.yanked(report) is None
    items = [
        {"metadata": {"name": "a", "version": "1"}, "is_yanked": True},
        {"metadata": {"name": "b", "version": "2"}, "is_yanked": False},
    ]
    report.write_text(json.dumps({"install": items}))
    assert audit.yanked(report) == ["a==1 was taken back by its authors"]


def test_an_advisory_is_found_and_no_database_is_no_success(audit: ModuleType, tmp_path: Path) -> None:
    answer = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]},
            {"name": "b", "skip_reason": "not found"},
        ]
    }
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\nexit 1\n")
    tool.chmod(0o700)
    assert audit.advisories(str(tool)) == (["a==1: PYSEC-1, mended in 1.1"], 1)
    locked = len(audit.pins((ROOT / "requirements.lock").read_text(encoding="utf-8")))
    assert audit.advisories("/nowhere/pip-audit") == ([], locked)
