"""A scenario: what is done to a daemon how often, and how to do several at once."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.chaos.report import Figure, Row

T = TypeVar("T")

CORES = max(1, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a scenario is told: how often to do it, by which chance, and where its files may lie."""

    amount: int
    seed: int
    scratch: Path

    def chance(self, *what: object) -> random.Random:
        """A source of chance of its own for each part, the same for the same seed."""
        return random.Random(f"{self.seed}/{what}")

    def shares(self, most: int = CORES) -> list[int]:
        """The amount, split for daemons that run side by side; none of the shares is nothing."""
        parts = max(1, min(most, self.amount))
        return [self.amount // parts + (part < self.amount % parts) for part in range(parts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """``full`` is how often at scale 1, ``least`` at any smaller one."""

    name: str
    full: int
    run: Callable[[Task], Row]
    least: int = 1

    def carry_out(self, *, scale: float, seed: int, scratch: Path) -> Row:
        """Do it. What it raises is a figure that does not hold: the other scenarios go on."""
        amount = max(self.least, round(self.full * scale))
        began = time.monotonic()
        home = scratch / self.name
        home.mkdir(parents=True)
        try:
            row = self.run(Task(amount=amount, seed=seed, scratch=home))
        except Exception as error:  # noqa: BLE001 - a harness that breaks is a failure, too
            row = Row(
                self.name, f"broke off: {type(error).__name__}", [Figure("scenario broke off", 1, False)]
            )
            row.details += str(error).splitlines()[-20:]
        row.seconds = time.monotonic() - began
        return row


def side_by_side(parts: Sequence[Callable[[], T]]) -> list[T]:
    """Run all at once, each on a thread of its own; what they give. Raises the first error when all have ended."""
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        return [future.result() for future in [pool.submit(part) for part in parts]]
