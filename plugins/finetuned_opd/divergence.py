"""How far the student's next-token distribution is from the teacher's, per position. Pure.

All take log-probabilities over the same vocabulary (or the same tokens of it) in the last dimension, and give nats.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

_MOST = -1e-7  # the log of the largest mass that tokens apart from the tail may have: 1 would leave it log(0)


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) = Σ π_T (log π_T - log π_S): the student is to cover what the teacher does. [..., V] -> [...]."""
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student ‖ teacher) = Σ π_S (log π_S - log π_T): the student is to do nothing that the teacher would not.

    [..., V] -> [...].
    """
    return F.kl_div(teacher, student, reduction="none", log_target=True).sum(-1)


def reverse_kl_of_logits(logits: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`reverse_kl` of the student's logits, the student's log-probabilities and their entropy.

    Its gradient π_S (log π_S - log π_T - KL) is worked out with it, in a third of the passes over memory that automatic
    differentiation takes; the other two have none. [..., V] and [..., V] -> [...], [..., V], [...].
    """
    found: tuple[Tensor, Tensor, Tensor] = _ReverseKL.apply(logits, teacher)
    return found


class _ReverseKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        student = torch.log_softmax(logits, dim=-1)
        probabilities = student.exp()
        ahead = student - teacher
        kl = torch.linalg.vecdot(probabilities, ahead)
        entropy = -torch.linalg.vecdot(probabilities, student)
        if ctx.needs_input_grad[0]:
            ctx.gradient = ahead.sub_(kl.unsqueeze(-1)).mul_(probabilities)
        ctx.mark_non_differentiable(student, entropy)
        return kl, student, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.mul_(gradients[0].unsqueeze(-1)), None


def generalized_jsd(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """β KL(π_T ‖ M) + (1-β) KL(π_S ‖ M) with M = β π_T + (1-β) π_S (GKD, arXiv 2306.13649, section 2).

    At its ends, where that is 0 whatever the student does, it is what it tends to once divided by what vanishes:
    β = 0 is the forward KL and β = 1 the reverse KL, as in TRL. [..., V] -> [...]. Raises ``ValueError`` for another β.
    """
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta must be from 0 (forward KL) to 1 (reverse KL), not {beta}")
    if beta == 0.0:
        return forward_kl(student, teacher)
    if beta == 1.0:
        return reverse_kl(student, teacher)
    mixture = torch.logaddexp(student + math.log1p(-beta), teacher + math.log(beta))
    return beta * forward_kl(mixture, teacher) + (1 - beta) * forward_kl(mixture, student)


def with_tail(log_probs: Tensor) -> Tensor:
    """The log-probabilities of some tokens and, last, of all others together: [..., K] -> [..., K+1].

    Without the tail a reverse KL over a few tokens falls when the student moves its mass to others, and so teaches it
    nothing (verl, issue 5041).
    """
    mass = torch.logsumexp(log_probs, dim=-1, keepdim=True).clamp(max=_MOST)
    return torch.cat([log_probs, torch.log(-torch.expm1(mass))], dim=-1)


def estimated(student: Tensor, teacher: Tensor, estimator: str) -> Tensor:
    """The reverse KL by one sampled token, to be differentiated: with d = log π_T - log π_S, k2 = d²/2, k3 = e^d - d - 1.

    Schulman, "Approximating KL divergence" (2020). The gradient of k2 is, in the mean over the student's samples, that of
    the reverse KL; k3 is never negative and of less variance, and its gradient that of the forward KL. k1 = -d is no
    loss: its gradient has nothing of the teacher in it. [...] -> [...]. Raises ``ValueError`` for k1 and others.
    """
    ahead = teacher - student
    if estimator == "k2":
        return ahead.square() / 2
    if estimator == "k3":
        return torch.exp(ahead) - ahead - 1
    raise ValueError(f"{estimator} cannot be a loss; take k2 or k3")
