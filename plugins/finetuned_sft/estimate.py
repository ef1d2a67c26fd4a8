"""What a job will take, from the headers of the model's files and the parameters. No tensor is read."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from finetuned_sdk import Estimate, Host
from finetuned_sft.params import Resolved, SFTParams, resolve

ADAM_BYTES = 8  # two float32 moments
FLOAT32, HALF, NF4 = 4.0, 2.0, 0.52  # bytes a weight; NF4 with double quantisation (arXiv 2305.14314)
GPU_BASE = 1 << 30  # CUDA's context, kernels and the allocator's slack
HOST_BASE = 1 << 30  # interpreter, torch, transformers and loader processes
ACTIVATIONS = 34  # bytes a token, layer and hidden unit in 16 bits, with fused attention (arXiv 2205.05198)
HEAD_CHUNK = 256  # TRL makes logits for so many tokens at a time
MAX_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's size: all weights, those in matrices that LoRA may adapt, and the widths."""

    weights: int
    linear_weights: int
    linear_widths: int  # inputs plus outputs of all adapted matrices: LoRA's weights per rank
    hidden: int
    layers: int
    vocabulary: int


def estimate(params: SFTParams, host: Host) -> Estimate:
    """Memory and disk, in bytes. ``None`` for a model that is not on this machine's disk. Time is not known."""
    directory = host.models.get(params.model) or Path(params.model).expanduser()
    try:
        shape = read_shape(directory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return Estimate()
    gpu = host.has_gpu
    settings = resolve(params, cpu_count=host.cpu_count, gpu=gpu, bf16_supported=gpu)
    trained = shape.weights if params.method == "full" else settings.lora_r * shape.linear_widths
    working = training_bytes(params, settings, shape, gpu=gpu, trained=trained)
    checkpoint = trained * (FLOAT32 + ADAM_BYTES)
    kept = (settings.save_total_limit or 1) + 1 + settings.load_best_model_at_end
    merged = shape.weights * FLOAT32 if params.merge_adapter else 0
    return Estimate(
        device_bytes=int(working + GPU_BASE) if gpu else None,
        host_bytes=int(HOST_BASE + shape.weights * HALF if gpu else HOST_BASE + working),
        disk_bytes=int(kept * checkpoint + trained * FLOAT32 + merged),
    )


def training_bytes(params: SFTParams, settings: Resolved, shape: Shape, *, gpu: bool, trained: int) -> float:
    """Weights, gradients, optimizer and activations at the longest batch."""
    wide = HALF if gpu and (settings.bf16 or settings.fp16) else FLOAT32
    if params.method == "full":
        weights = shape.weights * FLOAT32
    elif params.method == "qlora":
        weights = shape.linear_weights * NF4 + (shape.weights - shape.linear_weights) * wide
    else:
        weights = shape.weights * wide + trained * FLOAT32
    optimizer = trained * (FLOAT32 + (2 if "8bit" in settings.optim else ADAM_BYTES))
    tokens = params.per_device_train_batch_size * params.max_length
    copies = 1 if params.method == "full" else 2  # adapters keep their own inputs beside the layer's
    per_layer = copies * ACTIVATIONS * wide / HALF * tokens * shape.hidden
    kept = (
        wide * tokens * shape.hidden * shape.layers + per_layer
        if settings.gradient_checkpointing
        else (per_layer * shape.layers)
    )
    head = 3 * FLOAT32 * min(tokens, HEAD_CHUNK) * shape.vocabulary
    return weights + optimizer + kept + head


def read_shape(directory: Path) -> Shape:
    """Sizes from the safetensors headers and ``config.json``. Raises ``OSError``, ``ValueError`` or ``KeyError``."""
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
    return Shape(
        weights=sum(map(prod, shapes.values())),
        linear_weights=sum(map(prod, linear)),
        linear_widths=sum(map(sum, linear)),
        hidden=int(config["hidden_size"]),
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
