"""What the benchmark of batches asks: a small model of random weights, and short requests to it, the same each time."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ENDPOINT = "/v1/chat/completions"  # vLLM's run_batch knows no completions
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # so a prompt is the same for all
)
CONTEXT = 512  # tokens that a prompt and its completion may have together
AT_ONCE = 32  # completions that an engine computes at once
LENGTHS = (8, 16, 16, 32, 32, 64)  # tokens of completions
WORDS = 2000  # that prompts are made of; the tokenizer is trained on them
SHAPE = {
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,  # heads of 64, which vLLM knows on CPUs
    "num_key_value_heads": 2,
}
QUICK = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
SHARPER = 3.0  # random weights times this: else every token says itself again


@dataclass(frozen=True)
class Asked:
    """A request: a prompt, and how many tokens of completion, no more and no fewer."""

    custom_id: str
    prompt: str
    tokens: int


def requests(count: int) -> list[Asked]:
    """The same each time; prompts of 8 to 32 words."""
    chance, known = random.Random(1), words()
    return [
        Asked(
            f"row-{number}", " ".join(chance.choices(known, k=chance.randint(8, 32))), chance.choice(LENGTHS)
        )
        for number in range(count)
    ]


def words() -> list[str]:
    """Words of two to eight letters."""
    chance = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(chance.choices(letters, k=chance.randint(2, 8))) for _ in range(WORDS)]


def write_asked(path: Path, asked: list[Asked]) -> Path:
    """For the peers, which are processes of their own."""
    path.write_text(json.dumps([asdict(each) for each in asked]), encoding="utf-8")
    return path


def read_asked(path: Path) -> list[Asked]:
    """What :func:`write_asked` wrote."""
    return [Asked(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def write_batch(path: Path, asked: list[Asked], model: str) -> Path:
    """As a batch's input."""
    lines = [
        {"custom_id": each.custom_id, "method": "POST", "url": ENDPOINT, "body": body(each, model)}
        for each in asked
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def body(asked: Asked, model: str) -> dict[str, Any]:
    """A request as engines get it."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": asked.prompt}],
        "max_completion_tokens": asked.tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def make_model(directory: Path, *, quick: bool) -> Path:
    """A Llama of 14 million weights (``quick``: one million) with a tokenizer whose tokens are all plain text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{**SHAPE, **(QUICK if quick else {})},
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(SHARPER)
        model.lm_head.weight[: tokenizer.eos_token_id + 1] = (
            0  # what text does not show is never the likeliest
        )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_tokenizer() -> Any:
    """Byte-pair encoding of ASCII letters: no token is part of a character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=4096, special_tokens=["<|pad|>", "<|end|>"], show_progress=False)
    tokenizer.train_from_iterator([" ".join(words())], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = TEMPLATE
    return fast


def text_of(body: Any) -> str:
    """The text of an answer's body."""
    return str(body["choices"][0]["message"]["content"])
