"""A model's sizes, from the headers of its safetensors files and its ``config.json``. No tensor is read.

All of it is what a user put there: sizes that no model has raise ``ValueError``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from finetuned_training.small_json import open_regular, parse_object, read_object

MAX_HEADER = 100_000_000  # bytes; the format's own limit
LARGEST = 1 << 40  # of any width or number of layers
MOST_AXES = 8  # of a tensor
MOST_WEIGHTS, MOST_BYTES = 1 << 50, 1 << 53
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Widths:
    """Inputs and outputs of several matrices together: LoRA has as many weights per rank."""

    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's size: all weights, the matrices by their modules' names as (outputs, inputs), and the widths."""

    weights: int
    stored_bytes: int
    matrices: Mapping[str, tuple[int, int]]
    hidden: int
    inner: int  # of the MLP
    attention: int  # of all query heads together
    layers: int
    vocabulary: int

    @property
    def linear(self) -> list[str]:
        """The linear layers: what LoRA adapts if it is to adapt all, and what is quantised."""
        return [name for name in self.matrices if ".layers." in f".{name}"]

    @property
    def linear_weights(self) -> int:
        """Weights of the linear layers."""
        return sum(prod(self.matrices[name]) for name in self.linear)

    def adapted(self, targets: str | Sequence[str]) -> Widths:
        """Widths of what LoRA adapts.

        A list names modules by their ends. Any text counts as all linear layers: it may be a pattern, and patterns of
        strangers are not tried in the daemon.
        """
        names: Iterable[str] = self.linear
        if not isinstance(targets, str):
            ends = tuple(f".{target}" for target in targets)
            names = (name for name in self.matrices if f".{name}".endswith(ends))
        found = [self.matrices[name] for name in names]
        return Widths(inputs=sum(inputs for _, inputs in found), outputs=sum(outputs for outputs, _ in found))


def shape_of(directory: Path) -> Shape:
    """:func:`read_shape`, read again only when a file has changed."""
    indexes = (path for path in [directory / INDEX] if path.exists())
    files = [(path.name, path.stat()) for path in (directory / CONFIG, *indexes, *_all_weights(directory))]
    return _known(directory, tuple((name, found.st_mtime_ns, found.st_size) for name, found in files))


@lru_cache(maxsize=64)
def _known(directory: Path, _stamp: tuple[tuple[str, int, int], ...]) -> Shape:
    return read_shape(directory)


def read_shape(directory: Path) -> Shape:
    """Sizes from the headers. Raises ``OSError``, ``ValueError`` or ``KeyError``."""
    config = read_object(directory / CONFIG)
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config
    tensors: dict[str, Tensor] = {}
    for file in weight_files(directory):
        tensors |= read_header(file)
    if not tensors:
        raise ValueError(f"{directory} has no safetensors")
    weights = sum(tensor.weights for tensor in tensors.values())
    hidden = _size(config, "hidden_size")
    heads = _size_if_any(config, "num_attention_heads")
    head_dim = _size_if_any(config, "head_dim") or (hidden // heads if heads else None)
    return Shape(
        weights=_within(weights, MOST_WEIGHTS, "weights"),
        stored_bytes=sum(tensor.bytes for tensor in tensors.values()),
        matrices={
            name.removesuffix(".weight"): (tensor.shape[0], tensor.shape[1])
            for name, tensor in tensors.items()
            if len(tensor.shape) == 2 and name.endswith(".weight")
        },
        hidden=hidden,
        inner=_size_if_any(config, "intermediate_size") or 4 * hidden,
        attention=heads * head_dim if heads and head_dim else hidden,
        layers=_size(config, "num_hidden_layers"),
        vocabulary=_size(config, "vocab_size"),
    )


def weight_files(directory: Path) -> list[Path]:
    """The files that transformers loads: the whole model in one, or those that an index names, in this order.

    Others beside them may hold the same weights again; they count if there is neither. Raises ``OSError`` or
    ``ValueError``.
    """
    whole, index = directory / WEIGHTS, directory / INDEX
    if whole.is_file():
        return [whole]
    if not index.exists():
        return _all_weights(directory)
    named = read_object(index).get("weight_map")
    names = set(named.values()) if isinstance(named, dict) else set()
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise ValueError(f"{index} names no files of its directory")
    return sorted(directory / name for name in names)


def _all_weights(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: its shape, and the bytes that it takes there."""

    shape: tuple[int, ...]
    bytes: int

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def read_header(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file by name. Raises ``OSError``, ``ValueError`` or ``KeyError``."""
    with open_regular(file) as stream:
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
        except struct.error:
            raise ValueError(f"{file} is no safetensors file") from None
        if length > MAX_HEADER:
            raise ValueError(f"{file} is no safetensors file")
        header = parse_object(stream.read(length), file)
    header.pop("__metadata__", None)
    return {name: _tensor(entry, f"{name} in {file}") for name, entry in header.items()}


def _tensor(entry: Any, what: str) -> Tensor:
    match entry:
        case {"shape": [*shape], "data_offsets": [int(begin), int(end)]} if (
            len(shape) <= MOST_AXES and 0 <= begin <= end <= MOST_BYTES
        ):
            return Tensor(tuple(_within(size, LARGEST, what, least=0) for size in shape), end - begin)
    raise ValueError(f"{what} is no tensor")


def _size(config: Mapping[str, Any], name: str) -> int:
    return _within(config[name], LARGEST, name)


def _size_if_any(config: Mapping[str, Any], name: str) -> int | None:
    return None if config.get(name) is None else _size(config, name)


def _within(value: Any, most: int, what: str, *, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{what} is no number from {least} to {most}: {str(value)[:40]}")
    return value
