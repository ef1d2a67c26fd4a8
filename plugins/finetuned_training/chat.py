"""Conversations and plain text to tokens, with the model's own tokenizer and chat template. Without torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from finetuned_sdk import JobError
from finetuned_training.conversations import BadRowError, Message
from finetuned_training.params import TrainingParams

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: str | dict[str, str] | None
    eos_token: str | None

    def __call__(self, text: str) -> Mapping[str, Any]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: list[Message], **kwargs: Any) -> Mapping[str, Any]: ...


def chat_template(tokenizer: Tokenizer) -> str | None:
    """The tokenizer's template; of several named ones, the default."""
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def marked_template(template: str) -> str | None:
    """The template itself if it marks the assistant's tokens, else TRL's marked variant of it if TRL has one.

    TRL keeps its variants as files beside the templates they replace; reading them spares importing torch.
    """
    if _GENERATION.search(template):
        return template
    spec = importlib.util.find_spec("trl")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for original in Path(root, "chat_templates").glob("*.jinja"):
            training = original.with_name(f"{original.stem}_training.jinja")
            if training.exists() and original.read_text(encoding="utf-8") == template:
                return training.read_text(encoding="utf-8")
    return None


def prompt_length(prompt_ids: list[int], ids: list[int]) -> int:
    """Where the answer starts: where prompt and whole row part.

    That is the prompt's end unless tokens merge across the seam or the template renders a lone prompt otherwise;
    then the model is trained on a context that it will not see when it is asked.
    """
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt_ids, ids, strict=False)))


def with_eos(text: str, tokenizer: Tokenizer) -> str:
    """The text, ending in the token that ends one."""
    eos = tokenizer.eos_token or ""
    return text if text.endswith(eos) else text + eos


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text as it stands."""
    return list(tokenizer(text)["input_ids"])


def chat_ids(tokenizer: Tokenizer, messages: list[Message], **kwargs: Any) -> list[int]:
    """The tokens of a conversation as the chat template renders it."""
    return list(rendered(tokenizer, messages, **kwargs)["input_ids"])


def rendered(tokenizer: Tokenizer, messages: list[Message], **kwargs: Any) -> Mapping[str, Any]:
    """What ``apply_chat_template`` gives. Raises :class:`BadRowError` if the template refuses the conversation."""
    import jinja2

    try:
        return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **kwargs)
    except jinja2.TemplateError as error:
        raise BadRowError(f"the model's chat template refuses the conversation: {error}") from error


def stop_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that may end a turn: the added vocabulary, which the merges do not make."""
    return frozenset(tokenizer.get_added_vocab().values())


def load_tokenizer(path: str, params: TrainingParams) -> Tokenizer:
    """The tokenizer without torch, from ``tokenizer.json``; models that have none take the slow way."""
    from transformers import PreTrainedTokenizerFast

    try:
        if not Path(path).is_dir() or Path(path, "tokenizer.json").is_file():
            tokenizer: Tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
        else:
            from transformers import AutoTokenizer  # imports torch

            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=params.trust_remote_code)
    except (OSError, ValueError) as error:
        raise JobError(
            f"The tokenizer of {params.model} cannot be loaded: {str(error).strip().splitlines()[0]}. Check that the "
            "directory is complete, or that this machine may reach the hub.",
            code="tokenizer_unloadable",
        ) from error
    return tokenizer
