from __future__ import annotations

import json
import os
import struct
from math import prod
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import Device, Estimate, Host
from finetuned_sft.params import SFTParams
from finetuned_training.alternatives import alternatives, effective, steps
from finetuned_training.estimate import estimate
from finetuned_training.model_shape import read_shape

GB = 1e9
HIDDEN, INNER, LAYERS, VOCABULARY = 576, 1536, 30, 49152  # SmolLM2-135M


def matrices() -> dict[str, tuple[int, ...]]:
    """The tensors of SmolLM2-135M."""
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
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
    return tensors


def write_header(file: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file in bfloat16 without its tensors: nothing but the header is read."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * prod(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    write_json_header(file, json.dumps(entries))


def write_json_header(file: Path, header: str) -> None:
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode())


def write_shards(model: Path) -> dict[str, str]:
    """The model in two files with an index; where each tensor is."""
    names = list(matrices())
    where = {name: f"model-0000{1 + (n >= 100)}-of-00002.safetensors" for n, name in enumerate(names)}
    for file in sorted(set(where.values())):
        write_header(model / file, {name: shape for name, shape in matrices().items() if where[name] == file})
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return where


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Headers without tensors: nothing else is read."""
    write_header(tmp_path / "model.safetensors", matrices())
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
    widths = shape.adapted("all-linear")
    assert (widths.inputs + widths.outputs) * 8 == 2_442_240  # peft's count of trainable weights at rank 8


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


def test_the_checkpoint_callback_says_how_many_checkpoints_are_kept(model: Path) -> None:
    def disk(**rule: int) -> int:
        callbacks = [{"name": "checkpoint", "params": rule}]
        return of(model, method="full", callbacks=callbacks).disk_bytes or 0

    checkpoint = 134_515_008 * 12
    assert disk(last=1) == (of(model, method="full", save_total_limit=1).disk_bytes or 0)
    assert disk() == disk(last=1)
    assert disk(last=3, best=2) == disk() + 4 * checkpoint
    assert disk(last=0, best=4) == disk() + 3 * checkpoint


def test_a_merged_model_takes_the_bytes_that_the_base_is_stored_in(model: Path) -> None:
    merged = of(model, merge_adapter=True).disk_bytes or 0
    assert merged - (of(model).disk_bytes or 0) == 2 * 134_515_008


def adapter_of(tmp_path: Path, **config: Any) -> str:
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return str(directory)


QUERIES = LAYERS * (HIDDEN + HIDDEN)  # weights per rank of an adapter of all query projections


def test_only_the_modules_that_are_named_are_adapted(model: Path) -> None:
    def gradients(**changes: Any) -> int:
        return of(model, **changes).breakdown["gradients"]

    assert gradients(lora_target_modules=["q_proj"], lora_r=4) == 4 * QUERIES * 4
    assert gradients(lora_target_modules=["self_attn.q_proj"], lora_r=4) == 4 * QUERIES * 4
    assert gradients(lora_target_modules=["proj"]) == 0
    assert gradients(lora_target_modules=["embed_tokens"], lora_r=1) == 4 * (VOCABULARY + HIDDEN)
    every = gradients(lora_target_modules="all-linear")
    assert gradients() == every == 16 * 305_280 * 4
    # A pattern is a stranger's program: it is not tried, and counts as all that it may mean.
    assert gradients(lora_target_modules="(.*)*x") == every


def test_an_earlier_adapter_is_counted_as_its_own_file_says(model: Path, tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path, r=64, target_modules=["q_proj"], lora_dropout=0.0)
    found = of(model, adapter=adapter)
    assert found.breakdown["gradients"] == 64 * QUERIES * 4
    named = of(model, lora_r=64, lora_target_modules=["q_proj"], lora_dropout=0.0)
    assert found == named
    dropped = of(model, lora_r=64, lora_target_modules=["q_proj"])
    assert dropped.breakdown["activations"] > named.breakdown["activations"]


def test_an_adapter_of_a_hub_counts_as_a_new_one(model: Path) -> None:
    assert of(model, adapter="owner/adapter") == of(model)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"r": 0, "target_modules": ["q_proj"]},
        {"r": 1e999, "target_modules": ["q_proj"]},
        {"r": 8, "target_modules": [1]},
        {"r": 8, "target_modules": None},
        {"r": 8, "target_modules": ["q_proj"], "lora_dropout": "x"},
    ],
)
def test_an_adapter_that_peft_did_not_write_has_no_estimate(
    model: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    assert of(model, adapter=adapter_of(tmp_path, **config)) == Estimate()


def test_a_model_that_is_there_twice_is_counted_once(model: Path) -> None:
    whole = read_shape(model)
    write_header(model / "consolidated.safetensors", matrices())
    assert read_shape(model) == whole
    (model / "model.safetensors").unlink()
    where = write_shards(model)
    assert len(set(where.values())) == 2
    assert read_shape(model) == whole
    # transformers takes the whole one, whatever an index says.
    write_header(model / "model.safetensors", {"model.norm.weight": (HIDDEN,)})
    assert read_shape(model).weights == HIDDEN


def test_files_of_other_names_count_where_nothing_says_which(model: Path) -> None:
    whole = read_shape(model)
    (model / "model.safetensors").rename(model / "weights.safetensors")
    assert read_shape(model) == whole


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "gone.safetensors"}}',
    ],
)
def test_an_index_that_names_no_files_has_no_estimate(model: Path, index: str) -> None:
    write_shards(model)
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(index)
    assert of(model) == Estimate()


def test_a_model_that_is_not_on_disk_has_no_estimate() -> None:
    assert of(Path("owner/name")) == Estimate()


def test_a_model_that_was_replaced_is_read_again(model: Path) -> None:
    before = of(model).host_bytes or 0
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2 * LAYERS}))
    assert of(model).host_bytes != before


NESTED = '{"a":' * 200_000


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 16, struct.pack("<Q", 4) + b"oops", struct.pack("<Q", len(NESTED)) + NESTED.encode()],
    ids=["empty", "too long", "no JSON", "nested"],
)
def test_a_broken_header_has_no_estimate(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert of(model) == Estimate()


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {"shape": [1]},
        {"shape": [-1, 4], "data_offsets": [0, 4]},
        {"shape": [10**400, 1], "data_offsets": [0, 4]},
        {"shape": [10**12] * 8, "data_offsets": [0, 4]},
        {"shape": [1.5], "data_offsets": [0, 4]},
        {"shape": [1] * 100_000, "data_offsets": [0, 4]},
        {"shape": [1], "data_offsets": [4, 0]},
        {"shape": [1], "data_offsets": [0, 10**400]},
    ],
    ids=["a list", "no place", "negative", "huge", "too many", "a part", "too many axes", "backwards", "far"],
)
def test_a_tensor_that_no_model_has_has_no_estimate(model: Path, entry: Any) -> None:
    write_json_header(model / "model.safetensors", json.dumps({"model.norm.weight": entry}))
    assert of(model) == Estimate()


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads"])
@pytest.mark.parametrize("value", ["0", "-1", "1e999", "1.5", "NaN", "true", '"30"', "[30]", "1" + "0" * 400])
def test_a_size_that_no_model_has_has_no_estimate(model: Path, name: str, value: str) -> None:
    config = json.loads((model / "config.json").read_text())
    text = json.dumps(config | {name: "HERE"}).replace('"HERE"', value)
    (model / "config.json").write_text(text)
    assert of(model) == Estimate()


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b'{"text_config": 3}', b"\xff", NESTED.encode(), b" " * (17 << 20)],
    ids=["empty", "null", "array", "number", "no UTF-8", "nested", "too large"],
)
def test_a_configuration_that_is_none_has_no_estimate(model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    assert of(model) == Estimate()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
def test_a_pipe_in_a_models_directory_holds_nobody_up(model: Path, name: str) -> None:
    (model / "model.safetensors").rename(model / "weights.safetensors")
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
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
        assert changed.rows_a_step == 24
        # Another method may not: adapters keep more of a long batch than they save.
        assert "method" in changes or getattr(estimate(changed, host(gpu=gpu)), fills) < now
    methods = {each["method"] for each in found if "method" in each}
    assert methods == ({"lora", "qlora"} if gpu else {"lora"})
    assert min(each["max_length"] for each in found if "max_length" in each) == 128


@pytest.mark.parametrize("gpu", [False, True])
def test_a_batch_that_the_trainer_finds_is_reckoned_with_as_the_usual_one_or_as_what_fits(
    model: Path, gpu: bool
) -> None:
    given = {"per_device_train_batch_size": "auto", "max_length": 1024}
    fills = "device_bytes" if gpu else "host_bytes"
    by_rows = {
        rows: of(model, gpu=gpu, max_length=1024, per_device_train_batch_size=rows) for rows in (1, 2, 4)
    }
    assert of(model, gpu=gpu, **given) == by_rows[4]

    def on(memory: int) -> Host:
        device = Device(id="d", kind="gpu" if gpu else "cpu", name="d", memory_bytes=memory if gpu else 0)
        return Host(devices=(device,), cpu_count=2, memory_bytes=1 << 40 if gpu else memory)

    bytes_of = {rows: getattr(found, fills) for rows, found in by_rows.items()}
    for memory, rows in ((bytes_of[4], 4), (bytes_of[4] - 1, 2), (bytes_of[2] - 1, 1), (1, 1)):
        assert getattr(estimate(params_of(model, **given), on(memory)), fills) == bytes_of[rows]


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
