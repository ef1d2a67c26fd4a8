"""What a scenario found: figures beside what was wanted, a row each, and one table of them all."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a scenario. ``holds`` says whether it is as it was wanted."""

    what: str
    value: float | str
    holds: bool = True

    def __str__(self) -> str:
        value = f"{self.value:,.4g}" if isinstance(self.value, float) else str(self.value)
        if isinstance(self.value, int):
            value = f"{self.value:,}"
        return f"{value} {self.what}" if self.holds else f"!! {value} {self.what}"


def none_of(what: str, found: Sequence[object] | int) -> Figure:
    """A figure that has to be zero."""
    count = found if isinstance(found, int) else len(found)
    return Figure(what, count, count == 0)


def all_of(what: str, count: int, total: int) -> Figure:
    """A figure that has to be the whole, which must not be nothing."""
    return Figure(f"of {total:,} {what}", count, count == total > 0)


def some(what: str, count: int) -> Figure:
    """A figure that must not be zero."""
    return Figure(what, count, count > 0)


def below(what: str, value: float, limit: float, *, is_demanded: bool = True) -> Figure:
    """A figure that has to stay below a limit; unless that is demanded, it is only shown."""
    return Figure(what, round(value, 3), value < limit or not is_demanded)


@dataclass(slots=True)
class Row:
    """What came of one scenario: what was done, the figures, and details of what went wrong."""

    scenario: str
    did: str
    figures: list[Figure] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    seconds: float = 0.0
    skipped: bool = False  # this machine does not let us; ``did`` says why

    @property
    def word(self) -> str:
        """How it went."""
        return "SKIP" if self.skipped else "ok  " if self.holds else "FAIL"

    @property
    def holds(self) -> bool:
        """Whether every figure is as it was wanted, and there is one."""
        return bool(self.figures) and all(figure.holds for figure in self.figures)

    def as_json(self) -> dict[str, Any]:
        """The row for programs."""
        return {
            "scenario": self.scenario,
            "did": self.did,
            "holds": self.holds,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 1),
            "figures": [
                {"what": figure.what, "value": figure.value, "holds": figure.holds} for figure in self.figures
            ],
            "details": self.details,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of one run. ``seed`` and ``scale`` say how to have them again."""

    rows: Sequence[Row]
    seed: int
    scale: float

    @property
    def holds(self) -> bool:
        """Whether every row does that was not skipped, and there is one."""
        done = [row for row in self.rows if not row.skipped]
        return bool(done) and all(row.holds for row in done)

    @property
    def verdict(self) -> str:
        """The last line for a terminal."""
        skipped = [row.scenario for row in self.rows if row.skipped]
        left_out = f"; not run: {', '.join(skipped)}" if skipped else ""
        return ("every figure holds" if self.holds else "NOT EVERY FIGURE HOLDS") + left_out

    def text(self) -> str:
        """The table for a terminal."""
        lines = [f"seed {self.seed}, scale {self.scale:g}, {machine()}"]
        for row in self.rows:
            lines.append(f"{row.word} {row.did} ({row.seconds:.0f} s)")
            lines += [f"       {figure}" for figure in row.figures]
            lines += [f"       - {detail}" for detail in row.details[:20]]
        return "\n".join(lines)

    def markdown(self) -> str:
        """The table for the documentation."""
        today = datetime.now(UTC).date().isoformat()
        lines = [
            f"Measured on {today}, {machine()}; seed {self.seed}, scale {self.scale:g}.",
            "",
            "| scenario | done | found | took |",
            "| --- | --- | --- | --- |",
        ]
        for row in self.rows:
            found = ", ".join(map(str, row.figures))
            lines.append(f"| `{row.scenario}` | {row.did} | {found} | {row.seconds:.0f} s |")
        return "\n".join(lines)

    def json(self) -> str:
        """The table for programs."""
        rows = [row.as_json() for row in self.rows]
        about = {"seed": self.seed, "scale": self.scale, "machine": machine(), "holds": self.holds}
        return json.dumps({**about, "rows": rows}, indent=2)


def machine() -> str:
    """The machine in a few words: cores, memory, kernel, Python."""
    cores = len(os.sched_getaffinity(0))
    first = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()[0]
    memory = int(first.split()[1]) / (1 << 20)
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{cores} cores, {memory:.0f} GiB of memory, Linux {kernel}, Python {platform.python_version()}"
