"""Pairs to tokens, as TRL's DPO trainer makes them. Used by validation and training alike, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetuned_dpo import formats
from finetuned_dpo.formats import Pair
from finetuned_dpo.params import FormatName
from finetuned_sdk import RowProblem
from finetuned_training import chat, conversations, dataset
from finetuned_training.chat import Tokenizer

NO_TEMPLATE = "the model has no chat template, so messages cannot be rendered; use its instruct variant, or three strings"


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """Token ids of a prompt and of two answers, before any cut.

    ``seam_moved``: the prompt's last tokens change when an answer follows, and are left out of it.
    """

    number: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    seam_moved: bool = False

    def cut(self, max_length: int) -> tuple[list[int], list[int], list[int]]:
        """Prompt and answers, the answers cut at their ends so that neither sequence is longer than ``max_length``."""
        room = max(0, max_length - len(self.prompt_ids))
        return self.prompt_ids[:max_length], self.chosen_ids[:room], self.rejected_ids[:room]


def tokenized_pairs(
    path: str, split: str, form: FormatName, tokenizer: Tokenizer
) -> Iterator[TokenizedPair | RowProblem]:
    """Every pair of a dataset in order; bad ones as problems in their place."""
    for item in dataset.read_rows(path, split):
        if isinstance(item, RowProblem):
            yield item
            continue
        try:
            yield tokenize(formats.convert(item.data, form), item.number, tokenizer)
        except conversations.BadRowError as error:
            yield item.problem(str(error))


def tokenize(pair: Pair, number: int, tokenizer: Tokenizer) -> TokenizedPair:
    """Token ids of one pair: the answers begin where both sequences part from the prompt alone."""
    prompt, chosen, rejected = (
        _conversation(pair, tokenizer) if pair.is_conversation else _texts(pair, tokenizer)
    )
    length = min(chat.prompt_length(prompt, chosen), chat.prompt_length(prompt, rejected))
    return TokenizedPair(
        number, prompt[:length], chosen[length:], rejected[length:], seam_moved=length < len(prompt)
    )


def _conversation(pair: Pair, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
    if chat.chat_template(tokenizer) is None:
        raise conversations.BadRowError(NO_TEMPLATE)
    prompt, chosen, rejected = pair.prompt, pair.chosen, pair.rejected
    assert isinstance(prompt, list)
    assert isinstance(chosen, list)
    assert isinstance(rejected, list)
    tools = pair.tools or None
    return (
        chat.chat_ids(tokenizer, prompt, tools=tools, add_generation_prompt=True),
        chat.chat_ids(tokenizer, prompt + chosen, tools=tools),
        chat.chat_ids(tokenizer, prompt + rejected, tools=tools),
    )


def _texts(pair: Pair, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
    whole = [chat.with_eos(f"{pair.prompt}{answer}", tokenizer) for answer in (pair.chosen, pair.rejected)]
    chosen, rejected = (chat.plain_ids(tokenizer, text) for text in whole)
    return chat.plain_ids(tokenizer, str(pair.prompt)), chosen, rejected
