"""Tokens and labels are those of TRL's own trainer, for every form of rows that TRL takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk import JobError
from finetuned_sft import tokenization
from finetuned_sft.params import SFTParams
from finetuned_sft.tokenization import IGNORED, TokenizedRow
from finetuned_training import chat as chat_of_model
from finetuned_training import conversations, supervised_rows
from finetuned_training.supervised_rows import FormatName

from .conftest import MARKED_CHATML, MakeTokenizer, chat, exchange

pytestmark = pytest.mark.torch

REWRITING = (  # shows the newest answer only, as templates of reasoning models do with thoughts
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] != 'assistant' or loop.last %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def ours(row: dict[str, Any], form: FormatName, tokenizer: Any, **changes: Any) -> TokenizedRow:
    params = SFTParams(model="m", dataset="d", **changes)
    rule = tokenization.loss_rule(params, form, tokenizer)
    return tokenization.tokenize(supervised_rows.convert(row, form, chat=rule.chat), 1, rule, tokenizer)


def trls(row: dict[str, Any], tokenizer: Any, directory: Path, model: str, **config: Any) -> tuple[Any, Any]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            str(directory),
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            report_to="none",
            **config,
        ),
        train_dataset=Dataset.from_list([row]),
        processing_class=tokenizer,
    )
    (prepared,) = trainer.train_dataset
    return prepared["input_ids"], prepared["labels"]


def messages(*numbers: int) -> list[dict[str, Any]]:
    return [message for number in numbers for message in chat(number)["messages"]]


@pytest.mark.parametrize("all_tokens", [False, True])
@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("text", {"text": "the river is green"}),
        ("prompt_completion", {"prompt": "what colour is the river:", "completion": " green"}),
        (
            "prompt_completion",
            {"prompt": messages(1)[:1], "completion": messages(1)[1:]},
        ),
        (
            "prompt_completion",
            {"prompt": messages(1, 2)[:3], "completion": messages(1, 2)[3:]},
        ),
    ],
    ids=["text", "strings", "one exchange", "a conversation"],
)
def test_labels_are_those_of_trl(
    form: FormatName,
    row: dict[str, Any],
    all_tokens: bool,
    tiny_model: str,
    tokenizer_factory: MakeTokenizer,
    tmp_path: Path,
) -> None:
    tokenizer = tokenizer_factory()
    mine = ours(row, form, tokenizer, completion_only_loss=not all_tokens)
    completion_only = None if form == "text" else not all_tokens
    theirs = trls(row, tokenizer, tmp_path, tiny_model, completion_only_loss=completion_only)
    assert (mine.input_ids, mine.labels) == theirs


def test_messages_with_a_marked_template_get_the_mask_of_trl(
    tiny_model: str, tokenizer_factory: MakeTokenizer, tmp_path: Path
) -> None:
    tokenizer = tokenizer_factory(MARKED_CHATML)
    row = {"messages": messages(1, 2, 3)}
    mine = ours(row, "messages", tokenizer)
    theirs = trls(row, tokenizer, tmp_path, tiny_model, assistant_only_loss=True)
    assert (mine.input_ids, mine.labels) == theirs
    assert mine.labels.count(IGNORED) > 0


def test_a_template_that_trl_knows_is_replaced_by_its_marked_one(tokenizer_factory: MakeTokenizer) -> None:
    from trl.chat_template_utils import get_training_chat_template, qwen2_5_chat_template

    tokenizer = tokenizer_factory(qwen2_5_chat_template)
    assert chat_of_model.marked_template(qwen2_5_chat_template) == get_training_chat_template(tokenizer)
    row = ours({"messages": messages(1, 2)}, "messages", tokenizer)
    learned = tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert learned.replace("\n", "") == "".join(f"{exchange(n)[1]}<|im_end|>" for n in (1, 2))


def test_messages_with_an_unmarked_template_are_masked_turn_by_turn(tokenizer_factory: MakeTokenizer) -> None:
    unmarked, marked = tokenizer_factory(), tokenizer_factory(MARKED_CHATML)
    row = {"messages": [{"role": "system", "content": "be brief"}, *messages(1, 2, 3)]}
    plain, reference = ours(row, "messages", unmarked), ours(row, "messages", marked)
    assert plain.input_ids == reference.input_ids
    # The marked template leaves the line break after the stop token out, rendering takes it along.
    different = [
        unmarked.decode([token])
        for token, mine, theirs in zip(plain.input_ids, plain.labels, reference.labels, strict=True)
        if mine != theirs
    ]
    assert set(different) == {"\n"}


def test_every_token_carries_loss_if_asked(tokenizer_factory: MakeTokenizer) -> None:
    row = ours({"messages": messages(1)}, "messages", tokenizer_factory(), assistant_only_loss=False)
    assert row.labels == row.input_ids


def test_a_template_that_rewrites_turns_is_refused_with_a_way_out(tokenizer_factory: MakeTokenizer) -> None:
    tokenizer = tokenizer_factory(REWRITING)
    assert ours({"messages": messages(1)}, "messages", tokenizer).labels.count(IGNORED) > 0
    with pytest.raises(JobError, match="generation") as caught:
        ours({"messages": messages(1, 2)}, "messages", tokenizer)
    assert caught.value.code == "chat_template_unsuitable"


@pytest.mark.parametrize("form", ["messages", "sharegpt"])
def test_conversations_need_a_chat_template(form: FormatName, tokenizer_factory: MakeTokenizer) -> None:
    with pytest.raises(JobError, match="instruct") as caught:
        ours({}, form, tokenizer_factory(None))
    assert caught.value.code == "chat_template_missing"


def test_alpaca_rows_are_turns_for_a_chat_model_and_the_alpaca_prompt_for_a_base_model(
    tokenizer_factory: MakeTokenizer,
) -> None:
    row = {"instruction": "name a colour", "input": "not red", "output": "blue"}
    chatty, plain = tokenizer_factory(), tokenizer_factory(None)
    as_turns = chatty.decode(ours(row, "alpaca", chatty).input_ids)
    as_text = plain.decode(ours(row, "alpaca", plain).input_ids)
    assert as_turns.startswith(
        "<|im_start|>user\nname a colour\n\nnot red<|im_end|>\n<|im_start|>assistant\nblue"
    )
    assert (
        "### Instruction:\nname a colour\n\n### Input:\nnot red\n\n### Response:\nblue<|im_end|>" in as_text
    )


def test_a_refusal_of_the_template_is_a_problem_of_the_row(tokenizer_factory: MakeTokenizer) -> None:
    tokenizer = tokenizer_factory("{{ raise_exception('System role not supported') }}")
    with pytest.raises(conversations.BadRowError, match="System role not supported"):
        ours({"messages": messages(1)}, "messages", tokenizer)


def test_tokens_that_merge_across_the_seam_are_noticed(tokenizer_factory: MakeTokenizer) -> None:
    tokenizer = tokenizer_factory()
    clean = {"prompt": "the lamp is", "completion": " red"}
    merging = {"prompt": "the lamp is ", "completion": "red"}
    assert not ours(clean, "prompt_completion", tokenizer).seam_moved
    assert ours(merging, "prompt_completion", tokenizer).seam_moved
