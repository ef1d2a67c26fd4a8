"""A random two-layer Llama and its tokenizer, made on the spot, and rows for it: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_llama import tiny_llama

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


def exchange(number: int) -> tuple[str, str]:
    """A question and its answer, both of fixture words."""
    colour, thing = COLOURS[number % len(COLOURS)], THINGS[number % len(THINGS)]
    return f"what colour is the {thing} {number % 7}", f"the {thing} is {colour}"


def chat(number: int) -> dict[str, Any]:
    """One exchange as messages."""
    question, answer = exchange(number)
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def make_tokenizer(chat_template: str | None = CHATML) -> Any:
    """A byte-level BPE tokenizer trained on the words of :func:`exchange`."""
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


def save_model(directory: Path) -> None:
    """Write the model, hidden size 32, and its tokenizer into a directory."""
    tokenizer = make_tokenizer()
    model = tiny_llama(tokenizer, tie_word_embeddings=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
