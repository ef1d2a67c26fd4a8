"""Which checkpoints of a job may go: the one rule for all kinds and callbacks. Pure; files are ``checkpoints``' matter."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LESS_IS_BETTER: Final = ("loss", "perplexity", "error", "wer", "mae", "mse")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A complete checkpoint of the job, of whichever attempt; ``metrics`` are those that its manifest holds."""

    path: Path
    attempt: int
    step: int
    metrics: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Keep the ``last`` newest checkpoints and the ``best`` ones by ``metric``; at least one, whatever they say.

    ``greater_is_better`` of ``None`` is told from the metric's name.
    """

    last: int = 1
    best: int = 0
    metric: str = "eval_loss"
    greater_is_better: bool | None = None

    @property
    def greater(self) -> bool:
        """Whether more of the metric is better."""
        if self.greater_is_better is None:
            return greater_is_better(self.metric)
        return self.greater_is_better


def greater_is_better(metric: str) -> bool:
    """Whether more of a metric is better, by its name."""
    return not metric.lower().endswith(LESS_IS_BETTER)


def newest_first(
    candidates: Iterable[Candidate], *, attempt: int, resumed_step: int | None
) -> list[Candidate]:
    """The checkpoints along the line of ``attempt``, which went on from ``resumed_step``, newest first.

    What earlier attempts saved beyond that step was left behind when the job was set back (or is damaged), so it comes
    after all that is on the line.
    """

    def age(each: Candidate) -> tuple[bool, int, int]:
        on_line = each.attempt == attempt or each.step <= (resumed_step or 0)
        return on_line, each.step, each.attempt

    return sorted(candidates, key=age, reverse=True)


def spare(
    ordered: list[Candidate],
    rule: Retention,
    *,
    protected: Collection[Path] = (),
    figures: Mapping[int, float | None] | None = None,
) -> list[Candidate]:
    """Which of the checkpoints, given newest first, the rule does not keep; oldest first.

    ``protected`` ones stay beside those that the rule keeps. ``figures`` tells the metric by step where the manifests
    do not; a checkpoint without a figure, or with NaN, cannot be among the best, and of equals the newer is better.
    """
    free = [each for each in ordered if each.path not in protected]
    values = {each.path: _figure(each, rule.metric, figures or {}) for each in free}
    judged = [each for each in free if values[each.path] is not None]
    judged.sort(
        key=lambda each: values[each.path] or 0.0, reverse=rule.greater
    )  # stable: the newer of equals first
    kept = [*free[: rule.last], *judged[: rule.best]]
    if not kept and len(free) == len(ordered):
        kept = free[:1]
    return [each for each in reversed(free) if each not in kept]


def _figure(candidate: Candidate, metric: str, figures: Mapping[int, float | None]) -> float | None:
    value = figures.get(candidate.step, candidate.metrics.get(metric))
    return None if value is None or math.isnan(value) else float(value)
