"""Which checkpoints retention keeps. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

LESS_IS_BETTER = ("loss", "perplexity", "error", "wer", "mae", "mse")


def greater_is_better(metric: str) -> bool:
    """Whether more of a metric is better, by its name."""
    return not metric.lower().endswith(LESS_IS_BETTER)


def kept(figures: Mapping[int, float | None], *, best: int, last: int, greater: bool) -> set[int]:
    """The steps to keep: the ``last`` newest, and the ``best`` ones by figure (ties: the newer).

    A checkpoint without a figure, or with NaN, cannot be among the best. Of a non-empty mapping at least the
    newest step is kept.
    """
    newest = sorted(figures, reverse=True)
    judged = [step for step in newest if (value := figures[step]) is not None and not math.isnan(value)]
    judged.sort(key=lambda step: figures[step] or 0.0, reverse=greater)  # stable: the newer of equals first
    return {*newest[:last], *judged[:best]} or set(newest[:1])
