"""Llama, Mistral, Qwen2 and Qwen3 on the CPU in float32, with packed weights, for rows that come and go.

What a prompt begins with is taken from a row that began so, whether that goes on or ended last: only the rest is computed.
Adapters are added to the products of the rows that use them, so rows of any adapters are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from finetuned_decoding.llama_decoder import Layer, Weights, attended, rotations, turned, weights_of
from finetuned_decoding.packed_linear import PackedLinear
from finetuned_sdk.engines import Adapter
from finetuned_transformers.decoder import Prompt
from finetuned_transformers.lora_files import Delta, Deltas, Shapes, deltas_of
from finetuned_transformers.slot_cache import SlotCache

_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
#: tokens of a prompt that are computed at once, and of a scored sequence whose logits are: more take memory, and no less time
_PORTION: Final = 2048
_LOGITS: Final = 256
#: shorter beginnings are not worth a copy
_SHARED: Final = 8


@dataclass(frozen=True, slots=True)
class _Span:
    """Tokens of a slot, from its ``start``-th on."""

    slot: int
    start: int
    ids: Sequence[int]
    adapter: str | None


@dataclass(frozen=True, slots=True)
class _Held:
    """The tokens that a slot has keys and values of, and the adapter that they were computed with."""

    ids: list[int]
    adapter: str | None


@dataclass(frozen=True, slots=True)
class _Use:
    """Which of the tokens that are computed use an adapter."""

    deltas: Deltas
    rows: Tensor | None  # None: all of them


class PackedDecoder:
    """See :class:`finetuned_transformers.decoder.Decoder`. Of the model, what is packed is let go."""

    def __init__(self, model: Any, weights: Weights, *, length: int, most_tokens: int) -> None:
        self._weights = weights
        self._shapes = [_shapes(layer) for layer in model.model.layers]
        self._cache = SlotCache(
            len(weights.layers), weights.kv_heads, weights.head_dim, most_tokens=most_tokens
        )
        self._cos, self._sin = rotations(weights, length)
        self._held: list[
            _Held
        ] = []  # what each slot has in the cache; those after the rows' are left of ended ones
        self._adapters: dict[str, Deltas] = {}
        self._use: list[_Use] = []
        _let_go(model)

    def join(self, prompts: Sequence[Prompt]) -> Tensor:
        self._make_room([each.limit for each in prompts])
        last: list[Tensor] = []
        together: list[tuple[_Span, Prompt]] = []
        for prompt in prompts:
            if together and not self._goes_with(prompt, together):
                last.append(self._joined(together))
                together = []
            span = self._begun(self._rows + len(together), list(prompt.ids), prompt.adapter)
            together.append((span, prompt))
        last.append(self._joined(together))
        self._look_at_adapters()
        return self._weights.head(self._weights.norm(torch.cat(last)))

    def prepare(self, prompt: Prompt, tokens: int) -> int:
        """In a slot after the rows', as if a row that ended had left it there."""
        self._make_room([prompt.limit])
        ids = list(prompt.ids)
        source, shared = self._longest_beginning(ids, prompt.adapter)
        goes_on = source >= self._rows and len(self._held[source].ids) == shared if shared else False
        ids = ids[: min(shared + tokens, len(ids) - 1)]
        if len(ids) > shared:
            self._fill(source if goes_on else self._rows, ids, prompt.adapter)
        return len(ids)

    def step(self, tokens: Tensor) -> Tensor:
        weights, cache = self._weights, self._cache
        groups = weights.heads // weights.kv_heads
        at = torch.tensor(cache.lengths)
        cos, sin = self._cos[at], self._sin[at]
        for held, token in zip(self._held, tokens.tolist(), strict=False):
            held.ids.append(token)
        cache.begin_step()
        hidden = weights.embed(tokens)
        for number, layer in enumerate(weights.layers):
            queries, keys, values = self._qkv(number, layer, hidden, cos, sin, self._use)
            grouped = queries.unflatten(1, (weights.kv_heads, groups))
            found = cache.attend(number, grouped, keys, values, scale=weights.scale)
            hidden = self._after_attention(number, layer, hidden, found.flatten(1), self._use)
        cache.end_step()
        return weights.head(weights.norm(hidden))

    def keep(self, rows: Sequence[int]) -> None:
        for held, length in zip(self._held, self._cache.lengths, strict=False):
            del held.ids[length:]  # a step that failed has left a token that is not in the cache
        left = [_Held(list(each.ids), each.adapter) for each in self._held[len(rows) :]]
        self._held = [self._held[row] for row in rows] + left
        self._cache.keep(rows)
        self._look_at_adapters()

    def score(self, ids: Sequence[int], adapter: str | None) -> Tensor:
        """In a slot of its own, beside the rows."""
        slot = self._rows
        self._make_room([len(ids)])
        self._held[slot : slot + 1] = [_Held([], None)]
        found, wanted = [], torch.tensor(ids)
        for start in range(0, len(ids), _PORTION):
            part = ids[start : start + _PORTION]
            hidden = self._prefill([_Span(slot, start, part, adapter)])
            for first in range(0, len(part), _LOGITS):
                targets = wanted[start + first + 1 : start + min(first + _LOGITS, len(part)) + 1, None]
                logits = self._weights.head(self._weights.norm(hidden[first : first + len(targets)]))
                found.append(logits.log_softmax(-1).gather(1, targets)[:, 0])
        return torch.cat(found)

    def add_adapter(self, adapter: Adapter) -> None:
        if adapter.name not in self._adapters:
            self._adapters[adapter.name] = deltas_of(Path(adapter.path), self._shapes)

    def drop_adapter(self, name: str) -> None:
        self._adapters.pop(name, None)
        self._held = [_Held([], None) if each.adapter == name else each for each in self._held]

    def free(self) -> None:
        del self._weights, self._cache, self._adapters, self._use

    @property
    def _rows(self) -> int:
        return len(self._cache.lengths)

    def _goes_with(self, prompt: Prompt, others: Sequence[tuple[_Span, Prompt]]) -> bool:
        """Whether a prompt is computed at once with others: not where it begins as one of them does."""
        if sum(len(span.ids) for span, _ in others) + len(prompt.ids) > _PORTION:
            return False
        ids = list(prompt.ids)
        _, there = self._longest_beginning(ids, prompt.adapter)
        among = max(
            _same(list(each.ids), ids[:-1]) if each.adapter == prompt.adapter else 0 for _, each in others
        )
        return among < _SHARED or among <= there

    def _joined(self, together: Sequence[tuple[_Span, Prompt]]) -> Tensor:
        """The last hidden states of prompts, which become rows. [n, H]."""
        spans = [span for span, _ in together]
        hidden = self._prefill(spans)
        for span, prompt in together:
            self._held[span.slot : span.slot + 1] = [_Held(list(prompt.ids), prompt.adapter)]
            self._cache.add(len(prompt.ids), prompt.limit)
        return hidden[torch.tensor([len(each.ids) for each in spans]).cumsum(0) - 1]

    def _fill(self, slot: int, ids: list[int], adapter: str | None) -> None:
        """Have the keys and values of these tokens in a slot."""
        self._prefill([self._begun(slot, ids, adapter)])
        self._held[slot : slot + 1] = [_Held(ids, adapter)]

    def _begun(self, slot: int, ids: list[int], adapter: str | None) -> _Span:
        """What is left to be computed of a slot's tokens: what another slot has is copied, what is too long for one go computed."""
        source, start = self._longest_beginning(ids, adapter)
        self._held[slot : slot + 1] = [_Held([], None)]  # it is written over from here on, even if this fails
        if start and source != slot:
            self._cache.share(source, slot, start)
        while len(ids) - start > _PORTION:
            self._prefill([_Span(slot, start, ids[start : start + _PORTION], adapter)])
            start += _PORTION
        return _Span(slot, start, ids[start:], adapter)

    def _make_room(self, limits: Sequence[int]) -> None:
        left = [len(each.ids) for each in self._held[self._rows :]]
        if self._cache.make_room(limits, left=left):
            del self._held[self._rows :]

    def _longest_beginning(self, ids: list[int], adapter: str | None) -> tuple[int, int]:
        """The slot that begins most as a prompt does, and for how many tokens: all but one at most."""
        wanted = ids[:-1]
        same = [_same(each.ids, wanted) if each.adapter == adapter else 0 for each in self._held]
        most = max(same, default=0)
        return (same.index(most), most) if most >= _SHARED else (0, 0)

    def _prefill(self, spans: Sequence[_Span]) -> Tensor:
        """Put tokens into the cache, those of all spans in one product; their hidden states. [n, H]."""
        weights, lengths = self._weights, [len(each.ids) for each in spans]
        at = torch.cat([torch.arange(each.start, each.start + len(each.ids)) for each in spans])
        cos, sin = self._cos[at], self._sin[at]
        use = self._uses([each.adapter for each in spans for _ in each.ids])
        hidden = weights.embed(torch.tensor([token for each in spans for token in each.ids]))
        for number, layer in enumerate(weights.layers):
            parts = [each.split(lengths) for each in self._qkv(number, layer, hidden, cos, sin, use)]
            found = [self._look(number, *each) for each in zip(spans, *parts, strict=True)]
            hidden = self._after_attention(number, layer, hidden, torch.cat(found), use)
        return hidden

    def _look(self, number: int, span: _Span, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the tokens of a span find in themselves and those before them. [n, heads * head_dim]."""
        every_key, every_value = self._cache.write(
            number, span.slot, span.start, keys.transpose(0, 1), values.transpose(0, 1)
        )
        return attended(queries, every_key, every_value, start=span.start, scale=self._weights.scale)

    def _qkv(
        self, number: int, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor, use: Sequence[_Use]
    ) -> tuple[Tensor, Tensor, Tensor]:
        product = _linear(layer.qkv, layer.input_norm(hidden), number, 0, use)
        return turned(self._weights, layer, product, cos, sin)

    def _after_attention(
        self, number: int, layer: Layer, hidden: Tensor, found: Tensor, use: Sequence[_Use]
    ) -> Tensor:
        hidden = hidden + _linear(layer.output, found, number, 1, use)
        gate, up = _linear(layer.gate_up, layer.mlp_norm(hidden), number, 2, use).chunk(2, dim=-1)
        return hidden + _linear(layer.down, layer.activation(gate) * up, number, 3, use)

    def _look_at_adapters(self) -> None:
        self._use = self._uses([each.adapter for each in self._held[: self._rows]])

    def _uses(self, names: Sequence[str | None]) -> list[_Use]:
        """The adapters of so many rows of a product, by name."""
        rows = {name: [at for at, each in enumerate(names) if each == name] for name in {*names} - {None}}
        return [
            _Use(self._adapters[name], None if len(at) == len(names) else torch.tensor(at))
            for name, at in rows.items()
            if name is not None
        ]


def packed_decoder(model: Any, *, length: int, most_tokens: int) -> PackedDecoder | None:
    """The decoder of a model, for rows of ``length`` tokens and a cache of ``most_tokens``.

    ``None`` if the model is not one of those computed here.
    """
    weights = weights_of(model)
    return None if weights is None else PackedDecoder(model, weights, length=length, most_tokens=most_tokens)


def _linear(packed: PackedLinear, x: Tensor, layer: int, part: int, use: Sequence[_Use]) -> Tensor:
    y = packed(x)
    for each in use:
        delta: Delta | None = each.deltas[layer][part]
        if delta is None:
            continue
        if each.rows is None:
            y = torch.addmm(y, x @ delta.down, delta.up)
        else:
            y.index_add_(0, each.rows, x[each.rows] @ delta.down @ delta.up)
    return y


def _shapes(layer: Any) -> Shapes:
    modules = {**dict(layer.self_attn.named_children()), **dict(layer.mlp.named_children())}
    return {name: (modules[name].in_features, modules[name].out_features) for name in _LINEAR}


def _let_go(model: Any) -> None:
    """Free the weights of which there are packed copies; the embedding's stay, and the norms'."""
    embedding = model.get_input_embeddings().weight
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight is not embedding:
            module.weight = nn.Parameter(torch.empty(0), requires_grad=False)


def _same(one: list[int], other: list[int]) -> int:
    """How many tokens two prompts begin with in common. Slices are compared: a loop would cost more than is saved."""
    same, differs = 0, min(len(one), len(other)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            differs = middle
    return same
