"""An environment of its own for an engine: what is done to make one, step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetuned.service.sources import Source
from finetuned.service.steps import Plan, Run, StepError
from finetuned_sdk import EngineEnvironment


@dataclass(frozen=True, slots=True)
class MakeEnvironment:
    """Have a virtual environment, made with the running interpreter; what one lacks that broke off is added, and nothing removed."""

    path: Path

    @property
    def text(self) -> str:
        """The environment."""
        return f"make the environment {self.path}"

    def run(self) -> None:
        """Make it, unless its pip is there. Raises ``StepError``, also if there is something else in its place."""
        if (self.path / "bin" / "pip").exists():
            return
        if self.path.exists() and not (self.path / "pyvenv.cfg").exists() and any(self.path.iterdir()):
            raise StepError(
                f"{self.path} holds files and is no environment; name a directory that is empty or not there."
            )
        python = getattr(sys, "_base_executable", None) or sys.executable
        Run((str(python), "-m", "venv", str(self.path)), "make the environment").run()


def plan(home: Path, environment: EngineEnvironment, source: Source, *, has_gpu: bool) -> Plan:
    """The steps. ``source`` is what finetuned itself is installed from, without its dependencies: the engine has them."""
    return (MakeEnvironment(home), *_steps(home, environment, source, has_gpu=has_gpu))


def _steps(home: Path, environment: EngineEnvironment, source: Source, *, has_gpu: bool) -> Iterator[Run]:
    pip = (str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
    packages = environment.gpu if has_gpu else environment.cpu
    yield Run((*pip, "install", *packages, "pluggy", "psutil"), "install the engine; this takes minutes")
    if environment.removed and not has_gpu:
        yield Run((*pip, "uninstall", "--yes", *environment.removed), "remove what is built for GPUs")
    requirement = source.requirement.replace("[train]", "")
    yield Run((*pip, "install", "--no-deps", "--force-reinstall", requirement), "install finetuned")
    if environment.check:
        python = str(home / "bin" / "python")
        yield Run((python, "-c", f"import {environment.check}"), "see that it can be imported")
