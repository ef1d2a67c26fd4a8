"""The engine over a tiny chat model, and an adapter of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.acceptance.sft.tiny import make_tokenizer
from tests.tiny_llama import tiny_llama

from finetuned_sdk.engines import Adapter

if TYPE_CHECKING:
    from finetuned_transformers.engine import TransformersEngine


def opinionated(**config: Any) -> Any:
    """A model that does not say the same of every prompt."""
    import torch

    model = tiny_llama(make_tokenizer(), **config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def save_adapter(directory: Path) -> Adapter:
    import torch
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(opinionated(), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(directory)
    return Adapter("mine", str(directory))


def tiny_engine(directory: Path, *, packed: bool = True, **params: Any) -> tuple[TransformersEngine, Adapter]:
    """Made on the running event loop; whoever asks for it closes it."""
    from finetuned_transformers.engine import TransformersEngine
    from finetuned_transformers.loading import loaded
    from finetuned_transformers.params import TransformersParams

    asked = TransformersParams(model="tiny", packed=packed, **{"cache_tokens": 8192, **params})
    engine = TransformersEngine(loaded(opinionated(), make_tokenizer(), asked))
    return engine, save_adapter(directory / "adapter")
