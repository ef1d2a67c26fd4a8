"""Which token comes next, by logits and by random numbers that were drawn beforehand. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

#: random numbers a token: one to draw it, and one to draw it anew if it is outside the nucleus
NOISE: Final = 2
_BLOCK: Final = 256  # tokens whose weights are added up before one of them is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn. ``stop_ids`` end one and belong to it; 0 ``top_k`` and 1.0 ``top_p`` leave all tokens.

    ``temperature`` 0 takes the likeliest token. ``top_p`` looks at what ``top_k`` has left, as transformers does.
    """

    max_new_tokens: int
    stop_ids: frozenset[int]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


def choose(logits: Tensor, noise: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """A token for each row and its log-probability at temperature 1, whatever the temperature it was drawn at.

    logits   [n, V]
    noise    [n, NOISE] float64, uniform in [0, 1)
    returns  [n] int64 and [n] float32
    """
    logits = logits.float()
    if sampling.temperature == 0:
        ids = logits.argmax(-1)
        return ids, _log_prob(logits, ids)
    softened = logits if sampling.temperature == 1 else logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        likeliest, order = softened.topk(sampling.top_k)
        place = _inverse_cdf(_nucleus(likeliest.softmax(-1), sampling.top_p), noise[:, 0])
        ids = order.gather(1, place[:, None])[:, 0]
        return ids, _log_prob(logits, ids)
    probs = softened.softmax(-1)
    ids = _inverse_cdf(probs, noise[:, 0])
    if sampling.top_p < 1:
        _draw_anew(ids, probs, noise[:, 1], sampling.top_p)
    if sampling.temperature == 1:
        return ids, probs.gather(1, ids[:, None])[:, 0].log()
    return ids, _log_prob(logits, ids)


def _log_prob(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(-1)


def _draw_anew(ids: Tensor, probs: Tensor, noise: Tensor, top_p: float) -> None:
    """Replace the tokens that are outside the nucleus by others that are drawn from it.

    A token is in the nucleus if the likelier ones have less than ``top_p`` together. So the vocabulary is sorted, which
    takes longer than all else here, only for the 1 - top_p of the rows that need it. What is drawn from all tokens and
    kept if it is in the nucleus, and else drawn from the nucleus, is distributed as if drawn from the nucleus at once.
    """
    own = probs.gather(1, ids[:, None])
    likelier = torch.where(probs > own, probs, 0).sum(-1)
    outside = (likelier >= top_p).nonzero()[:, 0]
    if len(outside):
        ordered, order = probs[outside].sort(-1, descending=True)
        place = _inverse_cdf(_nucleus(ordered, top_p), noise[outside])
        ids[outside] = order.gather(1, place[:, None])[:, 0]


def _nucleus(ordered: Tensor, top_p: float) -> Tensor:
    """Probabilities from the highest on, 0 where those before have ``top_p`` together. [n, K] -> [n, K]."""
    return (
        ordered.masked_fill(ordered.cumsum(-1, dtype=torch.float64) - ordered >= top_p, 0)
        if top_p < 1
        else ordered
    )


def _inverse_cdf(weights: Tensor, noise: Tensor) -> Tensor:
    """One index a row, as likely as its weight: where the running sum of the weights passes noise times their sum.

    One random number a row does, where ``torch.multinomial`` draws one for each token. Running sums over the whole
    vocabulary are slow, so a block of it is looked for first. [n, V] and [n] -> [n].
    """
    blocks = F.pad(weights, (0, -weights.shape[-1] % _BLOCK)).unflatten(-1, (-1, _BLOCK))
    block, rest = _passed(blocks.sum(-1), noise[:, None])
    place, _ = _passed(blocks.gather(1, block[:, :, None].expand(-1, -1, _BLOCK))[:, 0], rest)
    return (block * _BLOCK + place)[:, 0].clamp_(max=weights.shape[-1] - 1)


def _passed(weights: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Where the running sum passes a share of the sum, and the share of the weight there that the rest is.

    In float64, and never at a weight of 0, however sums are rounded: shares are kept below 1. [n, K], [n, 1] -> [n, 1] twice.
    """
    sums = weights.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:]
    target = torch.minimum(share * total, torch.nextafter(total, torch.zeros_like(total)))
    # Of sums that are no numbers no place is found; whoever asked learns it from the log-probability.
    place = torch.searchsorted(sums, target, right=True).clamp_(max=sums.shape[-1] - 1)
    before = F.pad(sums, (1, 0)).gather(1, place)
    return place, (target - before) / (sums.gather(1, place) - before)
