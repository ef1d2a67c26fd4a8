"""Completions of the student: sampled by the batch, each row for as long as it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn. ``stop_ids`` end one and belong to it; 0 ``top_k`` and 1.0 ``top_p`` leave all tokens."""

    max_new_tokens: int
    stop_ids: frozenset[int]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """Token ids, a stop token last if one ended it, and ``log_probs`` [n] float32 of the model at temperature 1."""

    ids: tuple[int, ...]
    log_probs: Tensor
    stopped: bool


class Sampler:
    """Samples from a model in evaluation mode; may keep buffers between calls."""

    def __init__(self, model: Any, sampling: Sampling) -> None:
        self._model = model
        self._sampling = sampling

    def sample(self, prompts: Sequence[Sequence[int]], generator: torch.Generator) -> list[Completion]:
        """One completion of each prompt, in their order. Draws from ``generator`` alone."""
        raise NotImplementedError
