"""Completions of the student: sampled by the batch, each row for as long as it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetuned_decoding.ranks import close_ranks
from finetuned_decoding.token_choice import NOISE, Sampling, choose
from finetuned_opd.decoding import Decoder, decoder_of
from finetuned_sdk import JobError

__all__ = ["Completion", "Sampler", "Sampling"]


@dataclass(frozen=True, slots=True)
class Completion:
    """Token ids, a stop token last if one ended it, and ``log_probs`` [n] float32 of the model at temperature 1."""

    ids: tuple[int, ...]
    log_probs: Tensor
    stopped: bool


class Sampler:
    """Samples from a model as it is at each call, in evaluation mode, and leaves it as it was.

    Rows that have ended are not computed any further. Random numbers are drawn for all rows and tokens beforehand, so
    what a row becomes does not depend on when others end. Nothing is kept between calls.
    """

    def __init__(self, model: Any, sampling: Sampling) -> None:
        self._model = model
        self._sampling = sampling

    def sample(self, prompts: Sequence[Sequence[int]], generator: torch.Generator) -> list[Completion]:
        """One completion of each prompt, in their order. Draws from ``generator`` alone; nothing if greedy.

        A completion ends, not stopped, where the model has no more positions. Raises ``ValueError`` for a prompt that is
        empty or leaves no position for a token, and ``JobError`` if the model's probabilities are no numbers.
        """
        if not prompts:
            return []
        limits = [_limit(self._model, len(prompt), self._sampling.max_new_tokens) for prompt in prompts]
        noise = _noise(len(prompts), self._sampling, generator)
        with torch.no_grad(), _evaluating(self._model):
            decoder = decoder_of(self._model, prompts, max(limits))
            return _completions(decoder, limits, noise, self._sampling)


def _limit(model: Any, prompt: int, wanted: int) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or prompt + wanted
    if not 0 < prompt < positions:
        raise ValueError(f"a prompt has {prompt} tokens, where from 1 to {positions - 1} can be completed")
    return min(wanted, positions - prompt)


def _noise(rows: int, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """[rows, tokens, NOISE] in float64: the steps of float32 are coarser than unlikely tokens are wide."""
    shape = (rows, sampling.max_new_tokens, NOISE)
    if sampling.temperature == 0:
        return torch.zeros(shape, dtype=torch.float64, device=generator.device)
    return torch.rand(shape, dtype=torch.float64, generator=generator, device=generator.device)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode; afterwards each module is again in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _completions(
    decoder: Decoder, limits: Sequence[int], noise: Tensor, sampling: Sampling
) -> list[Completion]:
    ids: list[list[int]] = [[] for _ in limits]
    rows = list(range(len(limits)))  # which prompt each row of the decoder completes
    logits = decoder.start()
    noise = noise.to(logits.device)
    log_probs = torch.zeros(noise.shape[:2], device=logits.device)
    for step in range(max(limits)):
        tokens, of_tokens = choose(logits, noise[rows, step], sampling)
        log_probs[rows, step] = of_tokens
        chosen = tokens.tolist()
        for row, token in zip(rows, chosen, strict=True):
            ids[row].append(token)
        going = [
            at
            for at, (row, token) in enumerate(zip(rows, chosen, strict=True))
            if token not in sampling.stop_ids and step + 1 < limits[row]
        ]
        if not going:
            break
        if len(going) < len(rows):
            kept = close_ranks(going)
            decoder.keep(kept)
            rows, tokens = [rows[at] for at in kept], tokens[kept]
        logits = decoder.step(tokens)
    return _collected(ids, log_probs, sampling)


def _collected(ids: Sequence[Sequence[int]], log_probs: Tensor, sampling: Sampling) -> list[Completion]:
    host = log_probs.cpu()
    if not host.isfinite().all():
        raise JobError(
            "The student's probabilities are no longer numbers; lower learning_rate or max_grad_norm, or use bf16 "
            "instead of fp16, and retry from an earlier checkpoint.",
            code="loss_diverged",
        )
    return [
        Completion(tuple(each), host[row, : len(each)].clone(), stopped=each[-1] in sampling.stop_ids)
        for row, each in enumerate(ids)
    ]
