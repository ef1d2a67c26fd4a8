"""What is left of a job that did not come to its end, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """A job that is about to end without success, and where its attempts have left their files.

    ``params`` are as submitted, ``datasets`` the files behind its references by parameter. ``attempts`` is the directory
    of the attempts' bundles, ``artifacts`` where results belong. ``reason`` is why it was cancelled or has failed.
    """

    job: str
    params: Mapping[str, Any]
    attempts: Path
    artifacts: Path
    was_cancelled: bool
    reason: str | None = None
    datasets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What was made: files below ``artifacts`` with their kinds, and the last figures of the job's progress."""

    artifacts: tuple[tuple[Path, str], ...] = ()
    progress: Mapping[str, Any] = field(default_factory=dict)
