"""A model's sizes, from the headers of its safetensors files and its ``config.json``. No tensor is read."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

MAX_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's size: all weights, those in matrices that LoRA may adapt, and the widths."""

    weights: int
    linear_weights: int
    inputs: int  # widths of the inputs of all adapted matrices together
    outputs: int
    hidden: int
    inner: int  # of the MLP
    attention: int  # of all query heads together
    layers: int
    vocabulary: int

    @property
    def linear_widths(self) -> int:
        """Inputs plus outputs of all adapted matrices: LoRA's weights per rank."""
        return self.inputs + self.outputs

    @property
    def inputs_a_layer(self) -> float:
        """Widths of the inputs of one layer's matrices together."""
        return self.inputs / self.layers

    @property
    def outputs_a_layer(self) -> float:
        """Widths of the outputs of one layer's matrices together."""
        return self.outputs / self.layers


def shape_of(directory: Path) -> Shape:
    """:func:`read_shape`, read again only when a file has changed."""
    files = (directory / "config.json", *sorted(directory.glob("*.safetensors")))
    return _known(
        directory, tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    )


@lru_cache(maxsize=64)
def _known(directory: Path, _stamp: tuple[tuple[str, int, int], ...]) -> Shape:
    return read_shape(directory)


def read_shape(directory: Path) -> Shape:
    """Sizes from the headers. Raises ``OSError``, ``ValueError`` or ``KeyError``."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    tensors: dict[str, Any] = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= read_header(file)
    if not tensors:
        raise ValueError(f"{directory} has no safetensors")
    shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
    linear = [
        shape
        for name, shape in shapes.items()
        if len(shape) == 2 and ".layers." in f".{name}" and name.endswith(".weight")
    ]
    hidden = int(config["hidden_size"])
    heads = config.get("num_attention_heads")
    head_dim = config.get("head_dim") or (hidden // int(heads) if heads else None)
    return Shape(
        weights=sum(map(prod, shapes.values())),
        linear_weights=sum(map(prod, linear)),
        inputs=sum(shape[1] for shape in linear),
        outputs=sum(shape[0] for shape in linear),
        hidden=hidden,
        inner=int(config.get("intermediate_size") or 4 * hidden),
        attention=int(heads) * int(head_dim) if heads and head_dim else hidden,
        layers=int(config["num_hidden_layers"]),
        vocabulary=int(config["vocab_size"]),
    )


def read_header(file: Path) -> dict[str, Any]:
    """The tensors of one safetensors file by name: ``{"dtype", "shape", "data_offsets"}``."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > MAX_HEADER:
            raise ValueError(f"{file} is no safetensors file")
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header
