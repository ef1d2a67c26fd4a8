"""LoRA adapters as they lie on disk, for layers whose weights are packed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from finetuned_sdk.engines import RequestError

_NAME: Final = re.compile(
    r"^base_model\.model\.(?:model\.)?layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight$"
)
#: what an adapter may have beside low-rank matrices, and what it is where it has none
_PLAIN: Final = {
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "lora_bias": False,
    "trainable_token_indices": None,
    "alora_invocation_tokens": None,
    "target_parameters": None,
    "alpha_pattern": {},
    "layer_replication": None,
}
#: ways to begin a training that leave the model beneath as it is; the others take something out of its weights
_BESIDE: Final = frozenset({"gaussian", "eva", "orthogonal"})
_PARTS: Final = (
    ("q_proj", "k_proj", "v_proj"),
    ("o_proj",),
    ("gate_proj", "up_proj"),
    ("down_proj",),
)


@dataclass(frozen=True, slots=True)
class Delta:
    """What an adapter adds to linear layers of one input: x @ down @ up; [in, R] and [R, out + out + ...]."""

    down: Tensor
    up: Tensor


#: inputs and outputs of a layer's linear layers, by their names
Shapes = Mapping[str, tuple[int, int]]
#: by layer: of queries, keys and values; of the attention's output; of gate and up; of down
Deltas = Sequence[Sequence[Delta | None]]


def deltas_of(path: Path, shapes: Sequence[Shapes]) -> Deltas:
    """The adapter in a directory, for layers of these shapes. Raises ``RequestError``."""
    try:
        config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = _tensors(path)
    except (OSError, ValueError) as error:
        raise unfit(f"its files cannot be read: {error}") from None
    _check(config)
    if config.get("fan_in_fan_out"):
        raise unfit("its matrices are of layers that lie the other way round")
    found: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.match(name)
        if match is None or int(match[1]) >= len(shapes) or match[2] not in shapes[0]:
            raise unfit(f"it changes {name}, which this engine cannot")
        found.setdefault((int(match[1]), match[2]), {})[match[3]] = tensor.float()
    if not found:
        raise unfit("it has no matrices")
    scaled = {key: _scaled(config, key, pair) for key, pair in found.items()}
    return [[_joined(layer, parts, scaled, each) for parts in _PARTS] for layer, each in enumerate(shapes)]


def unfit(why: str) -> RequestError:
    """An adapter that does not fit."""
    return RequestError(f"The adapter cannot be used: {why}.", code="adapter_unusable", param="model")


def check_plain(path: Path) -> None:
    """Raise ``RequestError`` for an adapter that is more than low-rank matrices, which rows could not share a batch with."""
    try:
        _check(json.loads((path / "adapter_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise unfit(f"its files cannot be read: {error}") from None


def _check(config: Any) -> None:
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        raise unfit("it is no LoRA adapter")
    for name, plain in _PLAIN.items():
        if config.get(name) and config[name] != plain:
            raise unfit(
                f"it was trained with {name}={config[name]!r}, and only plain LoRA can be mixed in a batch"
            )
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun not in _BESIDE:
        raise unfit(
            f"it was trained with init_lora_weights={begun!r}, which changes the model beneath it; save it as plain LoRA"
            " (peft's path_initial_model_for_weight_conversion)"
        )


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path / "adapter_model.safetensors")
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _scaled(
    config: Mapping[str, Any], key: tuple[int, str], pair: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Of one linear layer: [in, r] and [r, out], what they are multiplied by taken into the second."""
    if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
        raise unfit(f"layer {key[0]}'s {key[1]} has one matrix of two, or of another rank")
    rank = pair["A"].shape[0]
    alpha = float(config.get("lora_alpha", 8))
    scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return pair["A"].T.contiguous(), pair["B"].T * scaling


def _joined(
    layer: int,
    parts: Sequence[str],
    scaled: Mapping[tuple[int, str], tuple[Tensor, Tensor]],
    shapes: Shapes,
) -> Delta | None:
    """The linear layers of one input as one."""
    pairs = [(name, *scaled[layer, name]) for name in parts if (layer, name) in scaled]
    if not pairs:
        return None
    total, rank = sum(shapes[name][1] for name in parts), sum(down.shape[1] for _, down, _ in pairs)
    joined = torch.zeros(rank, total)
    row = 0
    for name, down, up in pairs:
        column = sum(shapes[each][1] for each in parts[: parts.index(name)])
        if (down.shape[0], up.shape[1]) != shapes[name]:
            raise unfit(f"layer {layer}'s {name} is of another model's size")
        joined[row : row + up.shape[0], column : column + up.shape[1]] = up
        row += up.shape[0]
    return Delta(torch.cat([down for _, down, _ in pairs], dim=1), joined)
