"""A model and a tokenizer small enough to train in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_llama import tiny_llama

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level, no merges: every text can be written."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<|end|>", "<|pad|>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """The same random weights each time."""
    return tiny_llama(tokenizer, max_position_embeddings=256, attention_dropout=0.1)


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """Five rows of different lengths whose answers are JSON."""
    file = tmp_path / "held-out.jsonl"
    rows = [
        {
            "prompt": [{"role": "user", "content": f"{n} buns" + " please" * (n % 3)}],
            "completion": [{"role": "assistant", "content": json.dumps({"n": n, "item": "bun"})}],
        }
        for n in range(5)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
