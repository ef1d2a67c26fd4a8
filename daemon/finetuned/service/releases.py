"""The releases on disk: one virtual environment each, never changed once it is whole.

A trainer runs on in the release that it was started from, so that an upgrade swaps no file under it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetuned.attempts import identity
from finetuned.service.sources import Source
from finetuned.service.steps import Run, Write
from finetuned_sdk.bundle import Bundle, BundleError, read_json

RECORD = "release.json"


@dataclass(frozen=True, slots=True)
class MakeRelease:
    """Have a virtual environment with finetuned in it."""

    path: Path
    source: Source
    python: Path

    @property
    def text(self) -> str:
        """What is installed, and where."""
        return f"install {self.source.requirement} into {self.path}, with {self.python}"

    def run(self) -> None:
        """Make it, from the beginning if an earlier try broke off. Raises ``StepError``."""
        if fingerprint(self.path) == self.source.fingerprint:
            return
        if self.path.exists():
            shutil.rmtree(self.path)
        Run((str(self.python), "-m", "venv", str(self.path)), "make the environment").run()
        pip = (str(self.path / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check")
        Run((*pip, self.source.requirement), "install finetuned").run()
        os.sync()  # all that pip wrote, before anything says that it is whole
        record = {"version": self.source.version, "fingerprint": self.source.fingerprint}
        Write(self.path / RECORD, json.dumps(record)).run()  # last: without it the release is not whole


def place(releases: Path, source: Source) -> Path:
    """Where a source is installed, or is to be: a release that is whole is never written to."""
    number = 1
    while True:
        path = releases / (source.version if number == 1 else f"{source.version}-{number}")
        if fingerprint(path) in {None, source.fingerprint}:
            return path
        number += 1


def fingerprint(release: Path) -> str | None:
    """What a release was made from; ``None`` for one that is not there or not whole."""
    return _record(release).get("fingerprint")


def version(release: Path) -> str:
    """The version of a release that is there."""
    return _record(release).get("version", release.name)


def _record(release: Path) -> dict[str, str]:
    try:
        return dict(read_json(release / RECORD) or {})
    except BundleError:
        return {}


def prunable(
    releases: Iterable[Path], *, keep: Collection[Path], interpreters: Collection[Path]
) -> list[Path]:
    """The releases that nobody needs: neither kept, nor the home of an interpreter that a live attempt uses."""
    return [
        each
        for each in releases
        if each not in keep and not any(path.is_relative_to(each) for path in interpreters)
    ]


def interpreters_in_use(jobs: Path) -> Iterator[Path]:
    """The interpreters of attempts that live, or may still begin to."""
    for spec in jobs.glob("*/attempts/*/spec.json"):
        bundle = Bundle(spec.parent)
        if _may_live(bundle):
            try:
                yield Path(str((read_json(spec) or {})["interpreter"]))
            except (BundleError, KeyError):  # then no worker can have been started by it
                continue


def _may_live(bundle: Bundle) -> bool:
    if bundle.exit_path.exists():
        return False
    try:
        runner = bundle.read_runner()
        return not bundle.is_revoked if runner is None else identity.is_alive(runner)
    except BundleError:
        return True
