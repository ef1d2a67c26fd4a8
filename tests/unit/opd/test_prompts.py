"""The prompt of a row, and its answer if it has one, in every known form."""

from __future__ import annotations

from typing import Any

import pytest

from finetuned_opd import prompts
from finetuned_opd.prompts import Question
from finetuned_training.conversations import BadRowError

USER = {"role": "user", "content": "What is red?"}
ANSWER = {"role": "assistant", "content": "A colour."}


@pytest.mark.parametrize(
    ("row", "form", "question"),
    [
        ({"prompt": "a"}, "prompt", Question("a")),
        ({"prompt": [USER]}, "prompt", Question([USER])),
        ({"prompt": "a", "completion": "b"}, "prompt_completion", Question("a", "b")),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt_completion", Question([USER], [ANSWER])),
        ({"messages": [USER, ANSWER]}, "messages", Question([USER], [ANSWER])),
        ({"messages": [USER]}, "messages", Question([USER])),
        ({"conversations": [{"from": "human", "value": "What is red?"}, {"from": "gpt", "value": "A colour."}]},
         "sharegpt", Question([USER], [ANSWER])),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference", Question("a", "b")),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, "preference", Question([USER], [ANSWER])),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "preference", Question([USER], [ANSWER])),
        ({"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
         "openai", Question([USER], [ANSWER])),
    ],
)  # fmt: skip
def test_a_row_of_any_form_has_a_prompt_and_perhaps_an_answer(
    row: dict[str, Any], form: prompts.FormatName, question: Question
) -> None:
    assert prompts.detect(row) == form
    assert prompts.convert(row, form) == question


def test_plain_strings_become_turns_if_asked() -> None:
    row = {"prompt": "What is red?", "completion": "A colour."}
    assert prompts.convert(row, "prompt_completion", as_chat=True) == Question([USER], [ANSWER])
    assert prompts.convert({"prompt": "What is red?"}, "prompt", as_chat=True) == Question([USER])


@pytest.mark.parametrize("row", [{"text": "a"}, {"question": "a"}, {}])
def test_a_row_without_a_prompt_is_of_no_known_form(row: dict[str, Any]) -> None:
    assert prompts.detect(row) is None


@pytest.mark.parametrize(
    ("form", "row", "reason"),
    [
        ("prompt", {"prompt": ""}, "empty"),
        ("prompt", {"prompt": [ANSWER]}, "user"),
        ("prompt", {"prompt": [USER, ANSWER]}, "ends with a message from assistant"),
        ("prompt", {}, "null"),
        ("preference", {"prompt": [USER], "chosen": "b"}, "list of messages"),
        ("openai", {"input": "a", "preferred_output": [ANSWER]}, "not an object"),
        ("messages", {"messages": [ANSWER]}, "user"),
        ("messages", {"messages": []}, "empty"),
        ("scored", {"prompt_ids": [1]}, "precomputed_scores"),
    ],
)
def test_a_bad_row_says_what_is_wrong(form: prompts.FormatName, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRowError, match=reason):
        prompts.convert(row, form)
