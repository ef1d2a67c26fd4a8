"""Rows to tokens, and which tokens carry loss. Used by validation and training alike, without torch.

One module decides, so that what was audited is what is trained. The rules give the token ids and labels that
``trl.SFTTrainer`` gives for the same rows (a test compares them). Beyond TRL, messages whose chat template has
no ``{% generation %}`` markers are not refused: the span of each assistant turn is found by rendering the
conversation up to it.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from finetuned_sdk import JobError, RowProblem
from finetuned_sft import dataset, formats
from finetuned_sft.params import FormatName, SFTParams

IGNORED = -100  # the label that cross-entropy leaves out

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: str | dict[str, str] | None
    eos_token: str | None

    def __call__(self, text: str) -> Mapping[str, Any]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: list[dict[str, Any]], **kwargs: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """Token ids and labels of equal length, before any cut.

    ``untemplated``: a prompt and a completion in strings, which no chat template rendered. ``seam_moved``: see
    :func:`_prompt_length`.
    """

    number: int
    input_ids: list[int]
    labels: list[int]
    seam_moved: bool = False
    untemplated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRule:
    """How a dataset's rows are rendered and masked; chosen once by :func:`loss_rule`."""

    form: FormatName
    chat: bool  # plain-string prompts become turns
    assistant_only: bool
    completion_only: bool
    marked_template: str | None  # a chat template with {% generation %} markers, if there is one


def loss_rule(params: SFTParams, form: FormatName, tokenizer: Tokenizer) -> LossRule:
    """The rule for one dataset. Raises ``JobError`` if the rows are conversations and there is no template."""
    template = chat_template(tokenizer)
    wanted = params.apply_chat_template
    chat = (template is not None if wanted is None else wanted) if form == "alpaca" else bool(wanted)
    if template is None and (chat or form in ("messages", "sharegpt")):
        raise JobError(
            f"The model {params.model} has no chat template, so {form} rows cannot be rendered; use its instruct "
            "variant, or rows with prompt and completion strings.",
            code="chat_template_missing",
        )
    return LossRule(
        form=form,
        chat=chat,
        assistant_only=params.assistant_only_loss,
        completion_only=params.completion_only_loss,
        marked_template=template and marked_template(template),
    )


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


def tokenized_rows(
    path: str, split: str, rule: LossRule, tokenizer: Tokenizer
) -> Iterator[TokenizedRow | RowProblem]:
    """Every row of a dataset, rendered and masked, in order; bad ones as problems in their place."""
    for item in dataset.read_rows(path, split):
        if isinstance(item, RowProblem):
            yield item
            continue
        try:
            yield tokenize(
                formats.convert(item.data, rule.form, chat=rule.chat), item.number, rule, tokenizer
            )
        except formats.BadRowError as error:
            yield item.problem(str(error))


def tokenize(row: formats.TrainingRow, number: int, rule: LossRule, tokenizer: Tokenizer) -> TokenizedRow:
    """Token ids and labels of one row in TRL's form. Raises ``BadRowError`` if the template refuses it."""
    if "text" in row:
        ids = _plain(tokenizer, _with_eos(row["text"], tokenizer))
        return TokenizedRow(number, ids, list(ids))
    if "messages" in row:
        return _tokenize_messages(row, number, rule, tokenizer)
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str):
        prompt_ids = _plain(tokenizer, prompt)
        ids = _plain(tokenizer, _with_eos(prompt + completion, tokenizer))
    else:
        tools = row.get("tools")
        prompt_ids = _chat(tokenizer, prompt, tools=tools, add_generation_prompt=True)
        ids = _chat(tokenizer, prompt + completion, tools=tools)
    start = _prompt_length(prompt_ids, ids)
    labels = [IGNORED] * start + ids[start:] if rule.completion_only else list(ids)
    return TokenizedRow(
        number, ids, labels, seam_moved=start < len(prompt_ids), untemplated=isinstance(prompt, str)
    )


def _tokenize_messages(
    row: formats.TrainingRow, number: int, rule: LossRule, tokenizer: Tokenizer
) -> TokenizedRow:
    messages, tools = row["messages"], row.get("tools")
    if not rule.assistant_only:
        ids = _chat(tokenizer, messages, tools=tools)
        return TokenizedRow(number, ids, list(ids))
    if rule.marked_template is not None:
        rendered = _rendered(
            tokenizer,
            messages,
            tools=tools,
            chat_template=rule.marked_template,
            return_assistant_tokens_mask=True,
        )
        ids, mask = list(rendered["input_ids"]), rendered["assistant_masks"]
        labels = [token if carries else IGNORED for token, carries in zip(ids, mask, strict=True)]
        return TokenizedRow(number, ids, labels)

    ids = _chat(tokenizer, messages, tools=tools)
    labels, moved = [IGNORED] * len(ids), False
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt_ids = _chat(tokenizer, messages[:index], tools=tools, add_generation_prompt=True)
        turn_ids = ids if index == len(messages) - 1 else _chat(tokenizer, messages[: index + 1], tools=tools)
        start, end = _prompt_length(prompt_ids, ids), len(turn_ids)
        if ids[:end] != turn_ids:
            raise JobError(
                "The model's chat template rewrites earlier turns when a conversation goes on, so the assistant's "
                "tokens cannot be told apart; add {% generation %} markers to the template, give one exchange a "
                "row, or set assistant_only_loss=false.",
                code="chat_template_unsuitable",
            )
        labels[start:end] = ids[start:end]
        moved = moved or start < len(prompt_ids)
    return TokenizedRow(number, ids, labels, seam_moved=moved)


def _prompt_length(prompt_ids: list[int], ids: list[int]) -> int:
    """Where the answer starts: where prompt and whole row part.

    That is the prompt's end unless tokens merge across the seam or the template renders a lone prompt otherwise;
    then the model is trained on a context that it will not see when it is asked.
    """
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt_ids, ids, strict=False)))


def _with_eos(text: str, tokenizer: Tokenizer) -> str:
    eos = tokenizer.eos_token or ""
    return text if text.endswith(eos) else text + eos


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


def _chat(tokenizer: Tokenizer, messages: list[dict[str, Any]], **kwargs: Any) -> list[int]:
    return list(_rendered(tokenizer, messages, **kwargs)["input_ids"])


def _rendered(tokenizer: Tokenizer, messages: list[dict[str, Any]], **kwargs: Any) -> Mapping[str, Any]:
    import jinja2

    try:
        return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **kwargs)
    except jinja2.TemplateError as error:
        raise formats.BadRowError(f"the model's chat template refuses the conversation: {error}") from error
