"""Which token comes next in each row of a batch, each by its own settings and its own random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from finetuned_decoding.token_choice import NOISE, Sampling, choose

MOST_TOP: Final = 20  # likeliest tokens that can be asked for


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token, its log-probability at temperature 1, and the likeliest tokens with theirs, if they were asked for."""

    id: int
    log_prob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a row's tokens are drawn. ``numbers`` are the row's own: what others draw changes nothing."""

    sampling: Sampling
    top: int = 0
    numbers: random.Random = field(default_factory=random.Random)

    def noise(self) -> list[float]:
        """The random numbers of one token."""
        return (
            [0.0] * NOISE if self.sampling.temperature == 0 else [self.numbers.random() for _ in range(NOISE)]
        )


def draw(logits: Tensor, choices: Sequence[Choice]) -> list[Drawn]:
    """A token for each row. [n, V]."""
    noise = torch.tensor([each.noise() for each in choices], dtype=torch.float64, device=logits.device)
    ids = torch.empty(len(choices), dtype=torch.long, device=logits.device)
    log_probs = torch.empty(len(choices), device=logits.device)
    for sampling, rows in _alike(choices).items():
        if len(rows) == len(choices):
            ids, log_probs = choose(logits, noise, sampling)
        else:
            at = torch.tensor(rows, device=logits.device)
            ids[at], log_probs[at] = choose(logits[at], noise[at], sampling)
    tops = _likeliest(logits, choices)
    return [
        Drawn(token, log_prob, tops.get(row, ()))
        for row, (token, log_prob) in enumerate(zip(ids.tolist(), log_probs.tolist(), strict=True))
    ]


def _alike(choices: Sequence[Choice]) -> dict[Sampling, list[int]]:
    found: dict[Sampling, list[int]] = {}
    for row, each in enumerate(choices):
        found.setdefault(each.sampling, []).append(row)
    return found


def _likeliest(logits: Tensor, choices: Sequence[Choice]) -> dict[int, tuple[tuple[int, float], ...]]:
    rows = [row for row, each in enumerate(choices) if each.top]
    if not rows:
        return {}
    log_probs, ids = logits[rows].float().log_softmax(-1).topk(min(MOST_TOP, logits.shape[-1]))
    pairs = zip(rows, ids.tolist(), log_probs.tolist(), strict=True)
    return {
        row: tuple(zip(each[: choices[row].top], values[: choices[row].top], strict=True))
        for row, each, values in pairs
    }
