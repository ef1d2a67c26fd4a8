"""Linear layers with their weights packed, on the CPU in float32.

A product with a handful of rows is bound by reading the weights. MKL's, which ``torch.nn.functional.linear`` takes, lays them
out anew at each call; oneDNN keeps them laid out, which the same operators do for ``torch.compile``. With a thousand rows
that is still a tenth to a fifth faster here, and with the hundred that a vocabulary's logits are made for at once, half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

_ROWS: Final = 16  # that the layout is chosen for; from 8 rows on it is the same, for 1 it would be none


class PackedLinear:
    """Several linear layers of one input as one, [n, in] -> [n, out + out + ...]; a copy of the weights they have."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor | None]]) -> None:
        weights = [weight.detach() for weight, _ in layers]
        biases = [bias.detach() for _, bias in layers if bias is not None]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self._bias = torch.cat(biases) if biases else None
        self._packs = _can_pack()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS) if self._packs else weight  # noqa: SLF001

    def __call__(self, x: Tensor) -> Tensor:
        if not self._packs:
            return F.linear(x, self._weight, self._bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")  # noqa: SLF001
        return y


def is_packable(weight: Tensor) -> bool:
    """Whether a product with a weight is faster when it is packed."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and _can_pack()


class FrozenLinear(nn.Module):
    """A linear layer that nobody trains, its weight packed and no other copy of it kept: [..., in] -> [..., out]."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._linear = PackedLinear([(layer.weight, layer.bias)])
        self.out_features = layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """As the layer does; without gradients."""
        return self._linear(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self.out_features)


def freeze(model: Any, *, but: Any = None) -> None:
    """Pack the plain linear layers of a model on the CPU, where that makes it faster; ``but`` stays as it is."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer is not but and is_packable(layer.weight):
                setattr(parent, name, FrozenLinear(layer))


def _can_pack() -> bool:
    """Whether this build of torch has oneDNN and the operators, which are not part of its public interface."""
    operators = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and all(
        hasattr(operators, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def plain(module: Any) -> tuple[Tensor, Tensor | None] | None:
    """The weight and bias of what a linear layer computes in evaluation mode, LoRA adapters merged into a copy.

    ``None`` if it computes something else: on another device, in another type, quantized, or with another adapter.
    """
    if hasattr(module, "lora_A"):
        return _merged(module)
    if (
        type(module) is not nn.Linear
        or module.weight.device.type != "cpu"
        or module.weight.dtype != torch.float32
    ):
        return None
    return module.weight, module.bias


def _merged(module: Any) -> tuple[Tensor, Tensor | None] | None:
    from peft.tuners.lora import Linear

    base = plain(module.base_layer) if type(module) is Linear else None
    if base is None or module.disable_adapters or module.merged:
        return base
    weight, bias = base
    for adapter in module.active_adapters:
        if adapter not in module.lora_A:
            continue
        if adapter in module.lora_variant or module.lora_bias[adapter]:  # DoRA and others
            return None
        weight = weight + module.get_delta_weight(adapter)
    return weight, bias
