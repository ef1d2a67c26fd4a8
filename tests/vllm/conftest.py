"""A daemon whose engine ``vllm`` is the real one, and a small model. ``make test-vllm`` makes the environment."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.daemon.process import Daemon, running
from tests.acceptance.sft.tiny import make_tokenizer
from tests.tiny_llama import tiny_llama

PYTHON = os.environ.get("FINETUNED_TEST_VLLM_PYTHON")
CONTEXT = 512

if PYTHON is None:
    collect_ignore_glob = [
        "test_*.py"
    ]  # vLLM lives in an environment of its own; only `make test-vllm` has it


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama whose heads have a size that vLLM knows on CPUs."""
    directory = tmp_path_factory.mktemp("vllm") / "tiny"
    tokenizer = make_tokenizer()
    tiny_llama(tokenizer, hidden_size=128, intermediate_size=256).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def adapter(model: Path) -> Path:
    """A LoRA adapter over the model that changes what it answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    directory = model.parent / "adapter"
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(
        r=8, lora_alpha=64, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is going
        get_peft_model(base, config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def embedder(model: Path) -> Path:
    """A random BERT, which makes embeddings and generates nothing."""
    import torch
    from transformers import BertConfig, BertModel

    directory = model.parent / "embedder"
    torch.manual_seed(5)
    tokenizer = make_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
    )
    BertModel(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests: an engine takes half a minute to come up here."""
    file = tmp_path_factory.mktemp("config") / "config.toml"
    file.write_text(
        'default_engine = "vllm"\nengine_wait_s = 600\n'
        f'[engines.vllm]\npython = "{PYTHON}"\n'
        f"options = {{ max_model_len = {CONTEXT}, max_num_seqs = 16 }}\n"
    )
    with running("--config", str(file)) as started:
        yield started
