"""What a model in 4 bits needs beside bitsandbytes, so that it trains as it says and goes on as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def keep_trainable(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights when it sees them used without a gradient.

    On CPUs with AVX-512 BF16 it does that once and for good, for inference: what is packed has no backward pass. After an
    evaluation, or after the reference was asked, the adapters below the topmost layer would learn from no gradient
    (bitsandbytes 0.50.2, ``Linear4bit.forward``).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def types_kept(model: Any) -> Iterator[None]:
    """What is trained has the type afterwards that it had before: peft loads a bfloat16 adapter as float32."""
    types = {name: each.dtype for name, each in model.named_parameters() if each.requires_grad}
    yield
    for name, each in model.named_parameters():
        if name in types:
            each.data = each.data.to(types[name])
