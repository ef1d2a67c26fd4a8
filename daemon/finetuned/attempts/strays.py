"""Bundles that the log does not know, as after an older backup was restored.

They are reported and nothing of them is deleted or killed. One that a new attempt would take for its own,
because the log gives its number out again, is moved aside.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetuned.attempts import identity
from finetuned_sdk.bundle import Bundle, RunnerIdentity, sync_directory

logger = logging.getLogger(__name__)

Key = tuple[str, int]  # job and number of an attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A bundle that runs although the log does not know it. Its processes keep their ``devices``."""

    job: str
    attempt: int
    runner: RunnerIdentity
    tag: str
    devices: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Job and number."""
        return self.job, self.attempt

    @property
    def pid(self) -> int:
        """The process id of its runner."""
        return self.runner.pid

    def is_gone(self) -> bool:
        """Whether its runner is dead and has left nothing alive."""
        return not identity.is_alive(self.runner) and not identity.leftovers(self.tag, self.runner)


def bundles(jobs: Path) -> Iterator[tuple[Key, Bundle]]:
    """All bundles below ``jobs``, in the order of their paths; other files are passed over."""
    for path in sorted(jobs.glob("*/attempts/*")):
        if path.name.isascii() and path.name.isdecimal() and path.is_dir():
            yield (path.parent.parent.name, int(path.name)), Bundle(path)


def find_strays(jobs: Path, known: frozenset[Key]) -> list[Stray]:
    """The bundles below ``jobs`` that run although they are not ``known``."""
    return [
        stray
        for key, bundle in bundles(jobs)
        if key not in known and (stray := _stray(key, bundle)) is not None
    ]


def set_aside(bundle: Bundle) -> Path:
    """Rename a bundle so that no attempt takes it for its own; where it now lies."""
    target = bundle.path.with_name(f"quarantine-{bundle.path.name}-{time.time_ns() // 1_000_000}")
    bundle.path.rename(target)
    sync_directory(target.parent)
    return target


def _stray(key: Key, bundle: Bundle) -> Stray | None:
    try:
        if bundle.exit_path.exists():
            return None
        runner = bundle.read_runner()
        if runner is None or not identity.is_alive(runner):
            return None
        spec = bundle.read_spec()
        return Stray(job=key[0], attempt=key[1], runner=runner, tag=spec.tag, devices=spec.devices)
    except Exception as error:  # noqa: BLE001 - whatever one bundle holds, the daemon starts
        logger.warning("%s cannot be read and is passed over: %s", bundle.path, error)
        return None
