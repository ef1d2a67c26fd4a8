"""Rows to tokens, and which tokens carry loss. Used by validation and training alike, without torch.

One module decides, so that what was audited is what is trained. The rules give the token ids and labels that
``trl.SFTTrainer`` gives for the same rows (a test compares them). Beyond TRL, messages whose chat template has
no ``{% generation %}`` markers are not refused: the span of each assistant turn is found by rendering the
conversation up to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetuned_sdk import JobError, RowProblem
from finetuned_sft.params import SFTParams
from finetuned_training import chat, conversations, dataset, supervised_rows
from finetuned_training.chat import Tokenizer
from finetuned_training.supervised_rows import FormatName

IGNORED = -100  # the label that cross-entropy leaves out


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """Token ids and labels of equal length, before any cut.

    ``untemplated``: a prompt and a completion in strings, which no chat template rendered. ``seam_moved``: see
    :func:`finetuned_training.chat.prompt_length`.
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
    template = chat.chat_template(tokenizer)
    wanted = params.apply_chat_template
    as_turns = (template is not None if wanted is None else wanted) if form == "alpaca" else bool(wanted)
    if template is None and (as_turns or form in ("messages", "sharegpt")):
        raise JobError(
            f"The model {params.model} has no chat template, so {form} rows cannot be rendered; use its instruct "
            "variant, or rows with prompt and completion strings.",
            code="chat_template_missing",
        )
    return LossRule(
        form=form,
        chat=as_turns,
        assistant_only=params.assistant_only_loss,
        completion_only=params.completion_only_loss,
        marked_template=template and chat.marked_template(template),
    )


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
                supervised_rows.convert(item.data, rule.form, chat=rule.chat), item.number, rule, tokenizer
            )
        except conversations.BadRowError as error:
            yield item.problem(str(error))


def tokenize(
    row: supervised_rows.TrainingRow, number: int, rule: LossRule, tokenizer: Tokenizer
) -> TokenizedRow:
    """Token ids and labels of one row in TRL's form. Raises ``BadRowError`` if the template refuses it."""
    if "text" in row:
        ids = chat.plain_ids(tokenizer, chat.with_eos(row["text"], tokenizer))
        return TokenizedRow(number, ids, list(ids))
    if "messages" in row:
        return _tokenize_messages(row, number, rule, tokenizer)
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str):
        prompt_ids = chat.plain_ids(tokenizer, prompt)
        ids = chat.plain_ids(tokenizer, chat.with_eos(prompt + completion, tokenizer))
    else:
        tools = row.get("tools")
        prompt_ids = chat.chat_ids(tokenizer, prompt, tools=tools, add_generation_prompt=True)
        ids = chat.chat_ids(tokenizer, prompt + completion, tools=tools)
    start = chat.prompt_length(prompt_ids, ids)
    labels = [IGNORED] * start + ids[start:] if rule.completion_only else list(ids)
    return TokenizedRow(
        number, ids, labels, seam_moved=start < len(prompt_ids), untemplated=isinstance(prompt, str)
    )


def _tokenize_messages(
    row: supervised_rows.TrainingRow, number: int, rule: LossRule, tokenizer: Tokenizer
) -> TokenizedRow:
    messages, tools = row["messages"], row.get("tools")
    if not rule.assistant_only:
        ids = chat.chat_ids(tokenizer, messages, tools=tools)
        return TokenizedRow(number, ids, list(ids))
    if rule.marked_template is not None:
        rendered = chat.rendered(
            tokenizer,
            messages,
            tools=tools,
            chat_template=rule.marked_template,
            return_assistant_tokens_mask=True,
        )
        ids, mask = list(rendered["input_ids"]), rendered["assistant_masks"]
        labels = [token if carries else IGNORED for token, carries in zip(ids, mask, strict=True)]
        return TokenizedRow(number, ids, labels)

    ids = chat.chat_ids(tokenizer, messages, tools=tools)
    labels, moved = [IGNORED] * len(ids), False
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt_ids = chat.chat_ids(tokenizer, messages[:index], tools=tools, add_generation_prompt=True)
        turn_ids = (
            ids
            if index == len(messages) - 1
            else chat.chat_ids(tokenizer, messages[: index + 1], tools=tools)
        )
        start, end = chat.prompt_length(prompt_ids, ids), len(turn_ids)
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
