from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import Device, Estimate, Host
from finetuned_sft.alternatives import alternatives, effective, steps
from finetuned_sft.estimate import estimate
from finetuned_sft.model_shape import read_shape
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
    config = {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": 9,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def host(*, gpu: bool = False) -> Host:
    devices = (Device(id="gpu:0", kind="gpu", name="GPU", memory_bytes=1 << 36),) if gpu else ()
    return Host(devices=devices, cpu_count=2)


def params_of(model: Path, **changes: Any) -> SFTParams:
    return SFTParams.model_validate({"model": str(model), "dataset": "d", "max_length": 128, **changes})


def of(model: Path, *, gpu: bool = False, **changes: Any) -> Estimate:
    return estimate(params_of(model, **changes), host(gpu=gpu))


def test_sizes_come_from_the_header(model: Path) -> None:
    shape = read_shape(model)
    assert shape.weights == 134_515_008
    assert shape.linear_widths * 8 == 2_442_240  # peft's count of trainable weights at rank 8


# Peaks of real runs of SmolLM2-135M on a CPU, as in docs/benchmarks.md: parameters, gigabytes.
MEASURED: list[tuple[dict[str, Any], float]] = [
    ({"lora_dropout": 0.0, "per_device_train_batch_size": 2}, 2.02),
    ({"lora_dropout": 0.0, "per_device_train_batch_size": 8}, 4.56),
    ({"per_device_train_batch_size": 4}, 3.35),
    ({"lora_dropout": 0.0, "per_device_train_batch_size": 1, "max_length": 1024}, 4.59),
    ({"method": "full", "per_device_train_batch_size": 1, "max_length": 64}, 2.96),
    ({"method": "full", "per_device_train_batch_size": 4, "max_length": 256}, 5.02),
    ({"packing": True, "per_device_train_batch_size": 2, "max_length": 256}, 3.41),
    (
        {
            "gradient_checkpointing": True,
            "lora_dropout": 0.0,
            "per_device_train_batch_size": 8,
            "max_length": 256,
        },
        5.10,
    ),
]


@pytest.mark.parametrize(("params", "gigabytes"), MEASURED)
def test_host_memory_on_a_cpu_is_within_a_quarter_of_what_was_measured(
    model: Path, params: dict[str, Any], gigabytes: float
) -> None:
    found = of(model, **params)
    assert found.host_bytes == pytest.approx(gigabytes * GB, rel=0.25)
    assert found.host_bytes == sum(found.breakdown.values())
    assert found.device_bytes is None


def test_methods_are_ordered_by_the_memory_they_take(model: Path) -> None:
    qlora, lora, full = (
        of(model, gpu=True, method=method).device_bytes or 0 for method in ("qlora", "lora", "full")
    )
    assert 0 < qlora < lora < full


def test_longer_batches_and_no_checkpointing_take_more(model: Path) -> None:
    small = of(model, gpu=True).device_bytes or 0
    assert (of(model, gpu=True, max_length=1024).device_bytes or 0) > small
    assert (of(model, gpu=True, gradient_checkpointing=False).device_bytes or 0) > small


def test_short_rows_take_less_than_the_longest_that_is_allowed_unless_they_are_packed(
    model: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "short"}\n' * 10)
    allowed = of(model, max_length=2048).host_bytes or 0
    assert (of(model, dataset=str(rows), max_length=2048).host_bytes or 0) < allowed / 3
    assert of(model, dataset=str(rows), max_length=2048, packing=True).host_bytes == allowed
    rows.write_text(json.dumps({"text": "long " * 4000}) + "\n")
    assert of(model, dataset=str(rows), max_length=2048).host_bytes == allowed


def test_disk_counts_the_checkpoints_that_are_kept(model: Path) -> None:
    full = of(model, method="full").disk_bytes or 0
    assert full > 3 * 134_515_008 * 12  # two kept and one being written: weights and two moments each
    assert (of(model).disk_bytes or 0) < full / 10
    assert (of(model, merge_adapter=True).disk_bytes or 0) > (of(model).disk_bytes or 0)


def test_a_model_that_is_not_on_disk_has_no_estimate() -> None:
    assert of(Path("owner/name")) == Estimate()


def test_a_model_that_was_replaced_is_read_again(model: Path) -> None:
    before = of(model).host_bytes or 0
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2 * LAYERS}))
    assert of(model).host_bytes != before


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, struct.pack("<Q", 4) + b"oops"])
def test_a_broken_header_has_no_estimate(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert of(model) == Estimate()


@pytest.mark.parametrize("gpu", [False, True])
def test_alternatives_take_less_and_sum_up_to_the_same_batch(model: Path, gpu: bool) -> None:
    params = params_of(
        model, method="full", per_device_train_batch_size=12, gradient_accumulation_steps=2, max_length=1024
    )
    fills = "device_bytes" if gpu else "host_bytes"
    now = getattr(estimate(params, host(gpu=gpu)), fills)
    found = [changes for group in alternatives(params, host(gpu=gpu)) for changes in group]
    assert [each["per_device_train_batch_size"] for each in found[:5]] == [8, 6, 4, 3, 2]
    for changes in found:
        changed = SFTParams.model_validate(params.model_dump(exclude_unset=True) | dict(changes))
        assert changed.per_device_train_batch_size * changed.gradient_accumulation_steps == 24
        # Another method may not: adapters keep more of a long batch than they save.
        assert "method" in changes or getattr(estimate(changed, host(gpu=gpu)), fills) < now
    methods = {each["method"] for each in found if "method" in each}
    assert methods == ({"lora", "qlora"} if gpu else {"lora"})
    assert min(each["max_length"] for each in found if "max_length" in each) == 128


def test_open_parameters_are_filled_in_as_the_host_would(model: Path) -> None:
    assert effective(params_of(model), host())["learning_rate"] == 2e-4
    assert effective(params_of(model), host())["gradient_checkpointing"] is False
    assert effective(params_of(model, method="full"), host(gpu=True))["gradient_checkpointing"] is True


def test_steps_are_counted_from_the_lines_of_a_file(model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n\n' * 100)
    given = {"dataset": str(rows), "per_device_train_batch_size": 4, "gradient_accumulation_steps": 5}
    assert steps(params_of(model, **given), host()) == 15  # three epochs of a hundred rows in twenties
    assert steps(params_of(model, **given, max_steps=7), host()) == 7
    assert steps(params_of(model, **given, packing=True), host()) is None
    assert steps(params_of(model, dataset="owner/name"), host()) is None
