"""Tiny models of random weights, adapters of them, and a decoder driven by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from finetuned_transformers.decoder import Decoder, Prompt
from finetuned_transformers.forward_decoder import ForwardDecoder
from finetuned_transformers.packed_decoder import packed_decoder

VOCABULARY = 300
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
} | dict.fromkeys(("bos_token_id", "eos_token_id"))
#: those that are computed with packed weights
PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SHAPE),
    "llama with tied embeddings": ("Llama", SHAPE | {"tie_word_embeddings": True}),
    "mistral": ("Mistral", SHAPE | {"sliding_window": None}),
    "qwen2": ("Qwen2", SHAPE),
    "qwen3": ("Qwen3", SHAPE | {"head_dim": 16}),
}
#: those that are computed by their forward
FORWARD: dict[str, tuple[str, dict[str, Any]]] = {
    "llama by its forward": ("Llama", SHAPE),
    "mistral with a window": ("Mistral", SHAPE | {"sliding_window": 6}),
    "gemma2": ("Gemma2", SHAPE | {"head_dim": 8, "sliding_window": 6}),
    "gpt2": ("GPT2", GPT2),
}
ALL = PACKED | FORWARD


def model(name: str) -> Any:
    """A random model with opinions, its biases and norms not zeros and ones."""
    family, shape = ALL[name]
    torch.manual_seed(0)
    head = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    made = getattr(transformers, head)(getattr(transformers, f"{family}Config")(**shape))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4).add_(0.05 * torch.randn(parameter.shape))
    return made.eval()


def decoder(name: str) -> Decoder:
    """The decoder that is tested with the model of that name."""
    if name in FORWARD:
        return ForwardDecoder(model(name))
    packed = packed_decoder(model(name), length=128, most_tokens=2000)
    assert packed is not None
    return packed


def save_adapter(name: str, path: Path, *, seed: int = 1, **config: Any) -> str:
    """The directory of an adapter that changes what the model says."""
    from peft import LoraConfig, get_peft_model

    targets = ["c_attn", "c_fc"] if name == "gpt2" else ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    plain = {"r": 4, "lora_alpha": 8, "target_modules": targets, "fan_in_fan_out": name == "gpt2"}
    adapted = get_peft_model(model(name), LoraConfig(**{**plain, **config}))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(path)
    return str(path)


def merged(name: str, path: str) -> Any:
    """The model with an adapter merged in, by peft."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model(name), path).merge_and_unload().eval()


def generated(made: Any, prompt: Sequence[int], tokens: int) -> list[int]:
    """What ``generate`` says, likeliest token by likeliest token."""
    ids = torch.tensor([list(prompt)])
    out = made.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=tokens,
        pad_token_id=0,
    )
    found: list[int] = out[0, len(prompt) :].tolist()
    return found


def log_probs(made: Any, ids: Sequence[int]) -> Any:
    """Of each token but the first, from one forward."""
    with torch.no_grad():
        logits = made(torch.tensor([list(ids)])).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(list(ids)[1:])[:, None])[:, 0]


class Batch:
    """Takes the likeliest token of each row, row by row joined and ended as a test wants."""

    def __init__(self, made: Decoder) -> None:
        self.decoder = made
        self.names: list[str] = []
        self.texts: dict[str, list[int]] = {}

    def join(self, prompts: dict[str, Sequence[int]], adapter: str | None = None, limit: int = 100) -> None:
        with torch.inference_mode():
            logits = self.decoder.join([Prompt(ids, limit, adapter) for ids in prompts.values()])
        self.names += list(prompts)
        for name, token in zip(prompts, logits.argmax(-1).tolist(), strict=True):
            self.texts[name] = [token]

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            with torch.inference_mode():
                logits = self.decoder.step(torch.tensor([self.texts[name][-1] for name in self.names]))
            for name, token in zip(self.names, logits.argmax(-1).tolist(), strict=True):
                self.texts[name].append(token)

    def keep(self, *names: str) -> None:
        with torch.inference_mode():
            self.decoder.keep([self.names.index(name) for name in names])
        self.names = list(names)
