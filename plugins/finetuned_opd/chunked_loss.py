"""A loss on the student's next-token distributions that never holds all of them: positions are projected by chunks.

The logits of 8 x 96 completion tokens over 49,152 tokens are 151 MB in float32, and a divergence of two models holds
several such. Here a chunk of positions is projected, its loss and its gradients are worked out at once, and it is
forgotten; the backward pass only scales what is there, so that nothing is projected twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from finetuned_decoding.packed_linear import PackedLinear, is_packable

CHUNK = 128  # positions; 25 MB of float32 logits at 49,152 tokens


@dataclass(frozen=True, slots=True)
class Head:
    """What makes logits of hidden states: ``weight`` [V, H], ``bias`` [V] or none, then scale and soft-cap.

    ``packed`` is what weight and bias compute, faster and without gradients; see :meth:`packing`.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    packed: PackedLinear | None = None

    def packing(self) -> Head:
        """The same with a packed copy of the weight as it is now, where that is faster."""
        if not is_packable(self.weight):
            return self
        return replace(self, packed=PackedLinear([(self.weight, self.bias)]))

    def logits(self, hidden: Tensor) -> Tensor:
        """In float32: a divergence of rounded logits is noise. [N, H] -> [N, V]."""
        return self.finished(self.projected(hidden))

    def projected(self, hidden: Tensor) -> Tensor:
        """What the weight alone makes. [N, H] -> [N, V]."""
        if self.packed is not None and hidden.dtype == torch.float32 and not torch.is_grad_enabled():
            return self.packed(hidden)
        return F.linear(hidden, self.weight, self.bias)

    def finished(self, projected: Tensor) -> Tensor:
        """Logits of what was projected, in float32. [N, V] -> [N, V]."""
        logits = projected.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


ChunkLoss = Callable[[Tensor, slice], Tensor]
"""From the student's logits [n, V] at some positions, and which those are, to their loss as one number."""


def chunked_loss(hidden: Tensor, head: Head, loss: ChunkLoss, *, chunk: int = CHUNK) -> Tensor:
    """The sum of ``loss`` over all positions, with gradients for ``hidden`` [N, H] and for the head. One number."""
    total: Tensor = _ChunkedLoss.apply(hidden, head.weight, head.bias, head, loss, chunk)
    return total


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, loss: ChunkLoss, chunk: int
    ) -> Tensor:
        inputs = (hidden, weight, bias)
        wanted = [each is not None and need for each, need in zip(inputs, ctx.needs_input_grad, strict=False)]
        sums = [
            torch.zeros_like(each, dtype=torch.float32) if each is not None and want else None
            for each, want in zip(inputs, wanted, strict=True)
        ]
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, min(start + chunk, hidden.shape[0]))
            total += _fold(hidden, head, loss, rows, sums)
        ctx.gradients = [
            None if each is None or of is None else each.to(of.dtype)
            for each, of in zip(sums, inputs, strict=True)
        ]
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_total,) = grads
        scaled = [None if each is None else each * grad_total for each in ctx.gradients]
        return (*scaled, None, None, None)


def _fold(hidden: Tensor, head: Head, loss: ChunkLoss, rows: slice, sums: list[Tensor | None]) -> Tensor:
    """The loss of one chunk; its gradients are added to the sums of those that are wanted: hidden, weight, bias."""
    of_hidden, of_weight, of_bias = sums
    here = hidden[rows].detach()
    with torch.no_grad():
        projected = head.projected(here)
    with torch.enable_grad():
        projected = projected.requires_grad_(any(each is not None for each in sums))
        value = loss(head.finished(projected), rows)
    if projected.requires_grad:
        (gradient,) = torch.autograd.grad(value, projected)
        # What a linear layer's backward pass does, added up in place: a vocabulary's weights are large.
        if of_hidden is not None:
            of_hidden[rows] = gradient @ head.weight.detach()
        if of_weight is not None:
            _add_product(of_weight, gradient, here)
        if of_bias is not None:
            of_bias.add_(gradient.sum(0))
    return value.detach()


def _add_product(total: Tensor, gradient: Tensor, hidden: Tensor) -> None:
    if gradient.dtype == total.dtype:
        total.addmm_(gradient.t(), hidden)
    else:  # half precision: summed in float32
        total.add_(gradient.t() @ hidden)
