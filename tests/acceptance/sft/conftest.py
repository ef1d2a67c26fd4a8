"""A tiny Llama with a tokenizer of its own, made on the spot: nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk.testing import RecordingContext
from finetuned_sft.params import SFTParams

COLOURS = ("red", "green", "blue", "white", "black")
THINGS = ("apple", "river", "stone", "cloud", "horse", "lamp")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

MakeRows = Callable[[str, Iterable[Mapping[str, Any]]], str]
MakeContext = Callable[..., RecordingContext]
MakeTokenizer = Callable[..., Any]


def exchange(number: int) -> tuple[str, str]:
    """A question and its answer, both of fixture words."""
    colour, thing = COLOURS[number % len(COLOURS)], THINGS[number % len(THINGS)]
    return f"what colour is the {thing} {number % 7}", f"the {thing} is {colour}"


def chat(number: int) -> dict[str, Any]:
    """One exchange as messages."""
    question, answer = exchange(number)
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="session")
def tokenizer_factory() -> MakeTokenizer:
    """Makes a byte-level BPE tokenizer trained on the fixture's words."""

    def make(chat_template: str | None = CHATML) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        text = [" ".join(exchange(number)) + " user assistant system" for number in range(64)]
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(text, trainer)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
        )
        fast.chat_template = chat_template
        return fast

    return make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tokenizer_factory: MakeTokenizer) -> str:
    """The directory of a random two-layer Llama, hidden size 32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_factory()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    directory = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture
def make_rows(tmp_path: Path) -> MakeRows:
    """Writes rows to a JSONL file and gives its path."""

    def make(name: str, rows: Iterable[Mapping[str, Any]]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return make


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    """Makes a recording context for a job's parameters; each is an attempt of its own."""
    made = 0

    def make(params: SFTParams, **kwargs: Any) -> RecordingContext:
        nonlocal made
        made += 1
        models = {name: getattr(params, name) for name in ("model", "adapter") if getattr(params, name)}
        return RecordingContext(
            tmp_path / "state",
            params=params.model_dump(mode="json"),
            kind="sft",
            job_id=kwargs.pop("job_id", f"job{made}"),
            models=models,
            **kwargs,
        )

    return make
