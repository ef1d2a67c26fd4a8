"""Distributions of other people: really installed, into a directory of their own, without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.daemon.process import ROOT

COUNTDOWN = Path(__file__).parent / "countdown"


def install(source: Path, site: Path) -> Path:
    """What ``pip install SOURCE`` does, into ``site``; the distribution's dependencies are those of this environment."""
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


def changed(source: Path, target: Path, file: str, old: str, new: str) -> Path:
    """A copy of a distribution's source in which one file says something else."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    text = (target / file).read_text("utf-8")
    assert old in text
    (target / file).write_text(text.replace(old, new), "utf-8")
    return target


def search_path(*places: Path) -> str:
    """``PYTHONPATH`` of an environment that has these directories too."""
    own = [ROOT, *(ROOT / folder for folder in ("daemon", "events", "plugins"))]
    return os.pathsep.join(map(str, [*places, *own]))


def environment(site: Path, **more: str) -> Mapping[str, str]:
    """The environment of a command where ``site`` is installed, without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path(site), **more}


def plugin(name: str, site: Path, **more: str) -> tuple[int, dict[str, Any]]:
    """The exit code of ``finetune plugins`` where ``site`` is installed, and what it says of one plugin."""
    command = [sys.executable, "-m", "finetuned.cli.main", "plugins", "--json"]
    done = subprocess.run(command, env=environment(site, **more), capture_output=True, text=True, check=False)
    listed = {each["name"]: each for each in json.loads(done.stdout)["data"]}
    return done.returncode, listed[name]
