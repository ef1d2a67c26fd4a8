from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import Device, Estimate, Host
from finetuned_sft.estimate import estimate, read_shape
from finetuned_sft.params import SFTParams

GB = 1e9
HIDDEN, INNER, LAYERS, VOCABULARY = 576, 1536, 30, 49152  # SmolLM2-135M


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Headers without tensors: nothing else is read."""
    tensors = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}"
        tensors |= {
            f"{stem}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{stem}.self_attn.k_proj.weight": (HIDDEN // 3, HIDDEN),
            f"{stem}.self_attn.v_proj.weight": (HIDDEN // 3, HIDDEN),
            f"{stem}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{stem}.mlp.gate_proj.weight": (INNER, HIDDEN),
            f"{stem}.mlp.up_proj.weight": (INNER, HIDDEN),
            f"{stem}.mlp.down_proj.weight": (HIDDEN, INNER),
            f"{stem}.input_layernorm.weight": (HIDDEN,),
            f"{stem}.post_attention_layernorm.weight": (HIDDEN,),
        }
    entries: dict[str, Any] = {
        name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()
    }
    header = json.dumps(entries | {"__metadata__": {"format": "pt"}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    config = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def of(model: Path, *, gpu: bool = False, **changes: Any) -> Estimate:
    devices = (Device(id="gpu:0", kind="gpu", name="GPU", memory_bytes=1 << 36),) if gpu else ()
    params = SFTParams.model_validate({"model": str(model), "dataset": "d", "max_length": 128, **changes})
    return estimate(params, Host(devices=devices, cpu_count=2))


def test_sizes_come_from_the_header(model: Path) -> None:
    shape = read_shape(model)
    assert shape.weights == 134_515_008
    assert shape.linear_widths * 8 == 2_442_240  # peft's count of trainable weights at rank 8


def test_host_memory_on_a_cpu_is_near_what_was_measured(model: Path) -> None:
    # Peak RSS of real runs, 4 rows of 128 tokens in float32: LoRA at rank 8 3.2 GB, full tuning 3.6 GB.
    assert of(model, lora_r=8).host_bytes == pytest.approx(3.2 * GB, rel=0.25)
    assert of(model, method="full").host_bytes == pytest.approx(3.6 * GB, rel=0.25)
    assert of(model).device_bytes is None


def test_methods_are_ordered_by_the_memory_they_take(model: Path) -> None:
    qlora, lora, full = (
        of(model, gpu=True, method=method).device_bytes or 0 for method in ("qlora", "lora", "full")
    )
    assert 0 < qlora < lora < full


def test_longer_batches_and_no_checkpointing_take_more(model: Path) -> None:
    small = of(model, gpu=True).device_bytes or 0
    assert (of(model, gpu=True, max_length=1024).device_bytes or 0) > small
    assert (of(model, gpu=True, gradient_checkpointing=False).device_bytes or 0) > small


def test_disk_counts_the_checkpoints_that_are_kept(model: Path) -> None:
    full = of(model, method="full").disk_bytes or 0
    assert full > 3 * 134_515_008 * 12  # two kept and one being written: weights and two moments each
    assert (of(model).disk_bytes or 0) < full / 10
    assert (of(model, merge_adapter=True).disk_bytes or 0) > (of(model).disk_bytes or 0)


def test_a_model_that_is_not_on_disk_has_no_estimate() -> None:
    assert of(Path("owner/name")) == Estimate()


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, struct.pack("<Q", 4) + b"oops"])
def test_a_broken_header_has_no_estimate(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert of(model) == Estimate()
