"""The logits of completions, token after token: what a decoder is, the one for any model, and which one a model gets."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from finetuned_decoding import llama_decoder


class Decoder(Protocol):
    """Goes through a batch of completions, all at the same token of theirs. For one batch, with the weights of its start.

    Used without gradients and in evaluation mode.
    """

    def start(self) -> Tensor:
        """The logits of the first token of each completion. [n, V]."""

    def step(self, tokens: Tensor) -> Tensor:
        """The logits that follow, once each row has gone on by its token. [n] -> [n, V]."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order. None moves to a later place than the one it has."""


def decoder_of(model: Any, prompts: Sequence[Sequence[int]], new_tokens: int) -> Decoder:
    """The fastest decoder there is for the model, here and as it is at present."""
    weights = llama_decoder.weights_of(model)
    if weights is None:
        return ForwardDecoder(model, prompts)
    return llama_decoder.LlamaDecoder(weights, prompts, new_tokens)


class ForwardDecoder:
    """Asks the model's own forward: any decoder-only model with a cache, any device, autocast and adapters included."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._prompts = prompts
        self._cache: Any = None
        self._mask: Tensor  # [n, L]: 0 where a prompt was padded on its left
        self._last = _last_alone(model)

    def start(self) -> Tensor:
        device = self._model.get_input_embeddings().weight.device
        length = max(map(len, self._prompts))
        padded = [[0] * (length - len(prompt)) + list(prompt) for prompt in self._prompts]
        unpadded = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in self._prompts]
        self._mask = torch.tensor(unpadded, device=device)
        return self._forward(torch.tensor(padded, device=device), (self._mask.cumsum(-1) - 1).clamp(min=0))

    def step(self, tokens: Tensor) -> Tensor:
        positions = self._mask.sum(-1, keepdim=True)
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        return self._forward(tokens[:, None], positions)

    def keep(self, rows: Sequence[int]) -> None:
        self._mask = self._mask[list(rows)]
        self._cache.batch_select_indices(torch.tensor(rows, device=self._mask.device))

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        out = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            **self._last,
        )
        self._cache = out.past_key_values
        logits: Tensor = out.logits[:, -1]
        return logits


def _last_alone(model: Any) -> dict[str, int]:
    """The argument that has the head compute the last position alone, where the model takes it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Mixed precision wraps the forward in one that takes anything.
    forward = inspect.unwrap(getattr(base, "_original_forward", base.forward))
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(forward).parameters else {}
