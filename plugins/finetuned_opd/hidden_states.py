"""The last hidden states of rows, what they all begin with computed once.

Chats begin alike: with the same system prompt, in the same template. In a causal model what comes first does not depend on
what follows, so the keys and values of a shared beginning are those of every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

LEAST_SHARED: Final = 8  # tokens; fewer are not worth another pass


def shared_length(rows: Sequence[Sequence[int]], prompts: Sequence[int]) -> int:
    """How many tokens all rows begin with, the last of each prompt left out: that predicts what is learned."""
    if len(rows) < 2:
        return 0
    alike = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False)))
    shared = min(alike, *(length - 1 for length in prompts))
    return shared if shared >= LEAST_SHARED else 0


def last_hidden_states(model: Any, input_ids: Tensor, shared: int = 0) -> Tensor:
    """What the head makes logits of, adapters applied: [B, L] -> [B, L - shared, H].

    All rows begin with the same ``shared`` tokens, whose states are not given. Rows are padded at the right, where nothing
    that is learned looks, so there is no mask. With gradients, those of the shared tokens are the rows' together.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    past = _past(base, input_ids[:1, :shared], input_ids.shape[0]) if shared else None
    if past is None:
        whole: Tensor = base.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        return whole[:, shared:]
    found: Tensor = base.base_model(
        input_ids=input_ids[:, shared:], past_key_values=past, use_cache=True
    ).last_hidden_state
    return found


def _past(base: Any, beginning: Tensor, rows: int) -> DynamicCache | None:
    """Keys and values of the beginning, for so many rows; ``None`` of a model that keeps something else, or recomputes."""
    if getattr(base, "is_activation_checkpointing", False) and base.training:
        return None
    cache = DynamicCache(config=base.config)
    if any(type(layer) is not DynamicLayer for layer in cache.layers):  # a window, or a state of its own
        return None
    base.base_model(input_ids=beginning, past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        layer.keys = layer.keys.expand(rows, -1, -1, -1)
        layer.values = layer.values.expand(rows, -1, -1, -1)
    return cache
