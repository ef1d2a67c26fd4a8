"""Decoding with the weights of a Llama, Mistral, Qwen2 or Qwen3, in float32 on the CPU.

The same computation as the model's own forward, without what costs time there when a step is a token a row: weights are
packed and what shares an input is one product, the cache has its place from the start, and no mask is built a step.
Prompts are not padded, and what all of them begin with, often a system prompt, is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from finetuned_decoding.kv_cache import KVCache
from finetuned_decoding.packed_linear import PackedLinear, plain

#: the packed copy of larger weights (bytes) might not fit beside them
_MOST_WEIGHTS: Final = 8 << 30
#: the prompts' tokens that are computed at once: the hidden states of more are large, and no faster
_PREFILL_TOKENS: Final = 2048
#: rotary embeddings whose frequencies do not depend on how long a sequence is
_ROTARY: Final = frozenset({"default", "linear", "llama3", "yarn"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer: its norms as they are, and its linear layers packed."""

    input_norm: Callable[[Tensor], Tensor]
    qkv: PackedLinear
    query_norm: Callable[[Tensor], Tensor] | None
    key_norm: Callable[[Tensor], Tensor] | None
    output: PackedLinear
    mlp_norm: Callable[[Tensor], Tensor]
    gate_up: PackedLinear
    activation: Callable[[Tensor], Tensor]
    down: PackedLinear


@dataclass(frozen=True, slots=True)
class Weights:
    """A model that can be decoded here; a copy of its linear layers, as they are when it is made."""

    embed: Callable[[Tensor], Tensor]
    rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    layers: tuple[Layer, ...]
    norm: Callable[[Tensor], Tensor]
    head: PackedLinear
    heads: int
    kv_heads: int
    head_dim: int
    scale: float


def weights_of(model: Any) -> Weights | None:
    """The weights to decode with, or ``None`` if the model is not one of those that this module computes."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not _is_known(model, base):
        return None
    packed = [_layer(each) for each in base.model.layers]
    layers = tuple(each for each in packed if each is not None)
    head = _packed(base.lm_head)
    if head is None or len(layers) < len(packed):
        return None
    attention = base.model.layers[0].self_attn
    return Weights(
        embed=base.model.embed_tokens,
        rotary=base.model.rotary_emb,
        layers=layers,
        norm=base.model.norm,
        head=head,
        heads=base.config.num_attention_heads,
        kv_heads=base.config.num_key_value_heads,
        head_dim=attention.head_dim,
        scale=attention.scaling,
    )


def _is_known(model: Any, base: Any) -> bool:
    from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

    if type(base) not in {LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM}:
        return False
    config = base.config
    hooked = any(each._forward_hooks or each._forward_pre_hooks for each in base.model.layers.modules())  # noqa: SLF001
    size = sum(each.numel() * each.element_size() for each in base.parameters())
    return (
        config.rope_parameters["rope_type"] in _ROTARY
        and getattr(config, "sliding_window", None) is None
        and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in base.parameters())
        and not hasattr(model, "_original_forward")  # mixed precision: the forward computes in another type
        and not hooked
        and size <= _MOST_WEIGHTS
    )


def _layer(layer: Any) -> Layer | None:
    attention, mlp = layer.self_attn, layer.mlp
    qkv = _packed(attention.q_proj, attention.k_proj, attention.v_proj)
    output, gate_up, down = (
        _packed(attention.o_proj),
        _packed(mlp.gate_proj, mlp.up_proj),
        _packed(mlp.down_proj),
    )
    if qkv is None or output is None or gate_up is None or down is None:
        return None
    return Layer(
        input_norm=layer.input_layernorm,
        qkv=qkv,
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
        output=output,
        mlp_norm=layer.post_attention_layernorm,
        gate_up=gate_up,
        activation=mlp.act_fn,
        down=down,
    )


def _packed(*modules: Any) -> PackedLinear | None:
    parts = [plain(module) for module in modules]
    found = [each for each in parts if each is not None]
    # A bias of some of the layers alone is in none of these models.
    if len(found) < len(parts) or len({bias is None for _, bias in found}) > 1:
        return None
    return PackedLinear(found)


@dataclass(frozen=True, slots=True)
class _Span:
    """Tokens of one row, from its ``start``-th on."""

    row: int
    start: int
    ids: Sequence[int]


class LlamaDecoder:
    """Decodes one batch that begins together: ``finetuned_opd.decoding.Decoder`` says what its methods do."""

    def __init__(self, weights: Weights, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        self._weights = weights
        self._prompts = prompts
        self._next = torch.tensor([len(prompt) for prompt in prompts])
        self._cache = KVCache(
            [len(prompt) for prompt in prompts],
            new_tokens,
            layers=len(weights.layers),
            heads=weights.kv_heads,
            head_dim=weights.head_dim,
        )
        self._cos, self._sin = rotations(weights, self._cache.end + new_tokens)

    def start(self) -> Tensor:
        shared = _shared(self._prompts)
        if shared:
            self._prefill([_Span(0, 0, self._prompts[0][:shared])])
            self._cache.share(shared)
        spans = [_Span(row, shared, prompt[shared:]) for row, prompt in enumerate(self._prompts)]
        last = [self._prefill(each) for each in _portions(spans)]
        return self._weights.head(self._weights.norm(torch.cat(last)))

    def step(self, tokens: Tensor) -> Tensor:
        weights = self._weights
        groups = weights.heads // weights.kv_heads
        cos, sin = self._cos[self._next], self._sin[self._next]
        hidden = weights.embed(tokens)
        for number, layer in enumerate(weights.layers):
            queries, keys, values = self._qkv(layer, hidden, cos, sin)
            grouped = queries.unflatten(1, (weights.kv_heads, groups))
            found = self._cache.attend(number, grouped, keys, values, scale=weights.scale)
            hidden = _after_attention(layer, hidden, found.flatten(1))
        self._cache.end += 1
        self._next += 1
        return weights.head(weights.norm(hidden))

    def keep(self, rows: Sequence[int]) -> None:
        self._next = self._next[list(rows)]
        self._cache.keep(rows)

    def _qkv(self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return turned(self._weights, layer, layer.qkv(layer.input_norm(hidden)), cos, sin)

    def _prefill(self, spans: Sequence[_Span]) -> Tensor:
        """Put the tokens into the cache, one after another without padding; the last hidden state of each row. [n, H]."""
        positions = torch.cat([torch.arange(each.start, each.start + len(each.ids)) for each in spans])
        cos, sin = self._cos[positions], self._sin[positions]
        lengths = [len(each.ids) for each in spans]
        hidden = self._weights.embed(torch.tensor([token for each in spans for token in each.ids]))
        for number, layer in enumerate(self._weights.layers):
            parts = [each.split(lengths) for each in self._qkv(layer, hidden, cos, sin)]
            found = [self._look(number, *each) for each in zip(spans, *parts, strict=True)]
            hidden = _after_attention(layer, hidden, torch.cat(found))
        return hidden[torch.tensor(lengths).cumsum(0) - 1]

    def _look(self, number: int, span: _Span, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the tokens find in themselves and those before them. [n, heads, head_dim] -> [n, heads * head_dim]."""
        every_key, every_value = self._cache.write(
            number, span.row, span.start, keys.transpose(0, 1), values.transpose(0, 1)
        )
        return attended(queries, every_key, every_value, start=span.start, scale=self._weights.scale)


def attended(queries: Tensor, keys: Tensor, values: Tensor, *, start: int, scale: float) -> Tensor:
    """What tokens find in themselves and those before them, ``start`` of which are others.

    Queries are [n, heads, head_dim], keys and values [kv_heads, start + n, head_dim]; found is [n, heads * head_dim].
    """
    length = len(queries)
    mask = torch.ones(length, start + length, dtype=torch.bool).tril(start) if start else None
    found = F.scaled_dot_product_attention(
        queries.transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=True,
    )
    return found[0].transpose(0, 1).flatten(1)


def rotations(weights: Weights, length: int) -> tuple[Tensor, Tensor]:
    """What turns queries and keys to their positions, up to a length: cosines and sines, [length, 1, head_dim] each."""
    cos, sin = weights.rotary(torch.zeros(()), torch.arange(length)[None])
    half = weights.head_dim // 2
    sin = sin[0, :, None]
    # The sign of a half that changes places is in the sines.
    return cos[0, :, None], torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)


def turned(
    weights: Weights, layer: Layer, qkv: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, turned to their positions, and values: [n, ...] -> [n, heads or kv_heads, head_dim]."""
    heads = qkv.unflatten(-1, (-1, weights.head_dim))
    both, values = heads.split([weights.heads + weights.kv_heads, weights.kv_heads], dim=1)
    if layer.query_norm is not None and layer.key_norm is not None:
        queries, keys = both.split([weights.heads, weights.kv_heads], dim=1)
        both = torch.cat([layer.query_norm(queries), layer.key_norm(keys)], dim=1)
    both = torch.addcmul(both * cos, both.roll(weights.head_dim // 2, -1), sin)
    queries, keys = both.split([weights.heads, weights.kv_heads], dim=1)
    return queries, keys, values


def _after_attention(layer: Layer, hidden: Tensor, found: Tensor) -> Tensor:
    hidden = hidden + layer.output(found)
    gate, up = layer.gate_up(layer.mlp_norm(hidden)).chunk(2, dim=-1)
    return hidden + layer.down(layer.activation(gate) * up)


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, each keeping one of its own; 0 if there is but one prompt."""
    if len(prompts) < 2:
        return 0
    most = min(map(len, prompts)) - 1
    same = takewhile(
        lambda tokens: len(set(tokens)) == 1, zip(*(prompt[:most] for prompt in prompts), strict=False)
    )
    return sum(1 for _ in same)


def _portions(spans: Sequence[_Span]) -> Iterator[list[_Span]]:
    """Rows by as many as stay within ``_PREFILL_TOKENS``, at least one."""
    portion: list[_Span] = []
    for span in spans:
        if portion and sum(len(each.ids) for each in (*portion, span)) > _PREFILL_TOKENS:
            yield portion
            portion = []
        portion.append(span)
    yield portion
