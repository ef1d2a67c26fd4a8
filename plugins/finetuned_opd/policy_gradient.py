"""The other way to the reverse KL: reward every sampled token with how much likelier the teacher finds it. Pure.

One log-probability a token is all that is needed of the teacher. See Tinker's ``incorporate_kl_penalty``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def advantages(teacher: Tensor, sampler: Tensor, *, coefficient: float = 1.0) -> Tensor:
    """Coefficient · (log π_T(y_t) - log μ(y_t)): above 0 where the teacher finds a token likelier than its sampler did.

    Its mean under the sampler is -c · KL(μ ‖ π_T), so what raises it lowers the reverse KL. [...] -> [...], no gradient.
    """
    return coefficient * (teacher - sampler).detach()


def importance_weighted_loss(student: Tensor, sampler: Tensor, advantage: Tensor) -> Tensor:
    """-(π_S(y_t) / μ(y_t)) · A_t for each sampled token; the ratio corrects for a sampler that is not the student.

    Where they are the same the ratio is 1 and its gradient that of log π_S. [...] -> [...].
    """
    return -torch.exp(student - sampler) * advantage
