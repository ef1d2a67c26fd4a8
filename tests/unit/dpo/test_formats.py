"""The forms of preference rows: detected by their keys, converted, or refused with a reason to act on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetuned_dpo import formats
from finetuned_dpo.formats import Pair
from finetuned_dpo.params import FormatName
from finetuned_training.conversations import BadRowError

USER = {"role": "user", "content": "what colour is the sky"}
BLUE = {"role": "assistant", "content": "blue"}
GREEN = {"role": "assistant", "content": "green"}
SYSTEM = {"role": "system", "content": "be brief"}
CONVERSATION = Pair([USER], [BLUE], [GREEN])
OPENAI = {"input": {"messages": [USER]}, "preferred_output": [BLUE], "non_preferred_output": [GREEN]}


@pytest.mark.parametrize(
    ("row", "form", "pair"),
    [
        (
            {"prompt": "sky?", "chosen": " blue", "rejected": " green"},
            "preference",
            Pair("sky?", " blue", " green"),
        ),
        ({"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]}, "preference", CONVERSATION),
        ({"chosen": [USER, BLUE], "rejected": [USER, GREEN]}, "implicit_prompt", CONVERSATION),
        (
            {"prompt": "sky?", "chosen": [USER, BLUE], "rejected": [USER, GREEN]},
            "implicit_prompt",
            CONVERSATION,
        ),
        (
            {"chosen": "Human: sky? Bot: it is blue", "rejected": "Human: sky? Bot: it is black"},
            "implicit_prompt",
            Pair("Human: sky? Bot: it is", " blue", " black"),
        ),
        (OPENAI, "openai", CONVERSATION),
    ],
)
def test_each_form_is_detected_and_gives_a_prompt_with_two_answers(
    row: dict[str, Any], form: FormatName, pair: Pair
) -> None:
    assert formats.detect(row) == form
    assert formats.convert(row, form) == pair
    as_text = {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()}
    assert formats.convert(as_text, form) == pair  # as CSV and Parquet have it


def test_tools_and_a_system_message_are_kept() -> None:
    tools: list[Mapping[str, Any]] = [{"type": "function", "function": {"name": "look"}}]
    row = {**OPENAI, "input": {"messages": [SYSTEM, USER], "tools": tools, "parallel_tool_calls": True}}
    assert formats.convert(row, "openai") == Pair([SYSTEM, USER], [BLUE], [GREEN], tools)


def test_an_answer_may_be_several_turns() -> None:
    more = [BLUE, USER, GREEN]
    assert (
        formats.convert({"prompt": [USER], "chosen": more, "rejected": [GREEN]}, "preference").chosen == more
    )


@pytest.mark.parametrize(
    "row", [{}, {"prompt": "a", "completion": "b"}, {"chosen": "a"}, {"messages": [USER]}]
)
def test_other_rows_are_none_of_the_forms(row: dict[str, Any]) -> None:
    assert formats.detect(row) is None


@pytest.mark.parametrize(
    ("row", "form", "reason"),
    [
        (
            {"prompt": "a", "chosen": "b"},
            "preference",
            '"rejected" is missing; the row has "prompt", "chosen"',
        ),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "preference", '"rejected" is empty'),
        (
            {"prompt": "a", "chosen": [BLUE], "rejected": "b"},
            "preference",
            "must all be strings or all be lists",
        ),
        ({"prompt": [], "chosen": [BLUE], "rejected": [GREEN]}, "preference", "the prompt has no message"),
        (
            {"prompt": [USER, BLUE], "chosen": [GREEN], "rejected": [BLUE]},
            "preference",
            "from assistant, not from user",
        ),
        ({"prompt": [USER], "chosen": [], "rejected": [GREEN]}, "preference", '"chosen" has no message'),
        (
            {"prompt": [USER], "chosen": [USER], "rejected": [GREEN]},
            "preference",
            '"chosen": message 2 is from user',
        ),
        (
            {"prompt": [USER], "chosen": [{"role": "x"}], "rejected": [GREEN]},
            "preference",
            "has the role 'x'",
        ),
        (
            {"chosen": [USER, BLUE], "rejected": [SYSTEM, USER, GREEN]},
            "implicit_prompt",
            "do not begin alike",
        ),
        ({"chosen": "blue", "rejected": "green"}, "implicit_prompt", "do not begin alike"),
        (
            {"chosen": "the sky ", "rejected": "the sky is"},
            "implicit_prompt",
            '"chosen" is empty after the prompt',
        ),
        ({"chosen": "a b", "rejected": [BLUE]}, "implicit_prompt", "must both be strings or both be lists"),
        ({**OPENAI, "input": "sky?"}, "openai", '"input" is a string, not an object'),
        ({**OPENAI, "input": {}}, "openai", '"messages" is missing'),
        ({**OPENAI, "preferred_output": "blue"}, "openai", '"preferred_output" is a string, not a list'),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_refused_with_the_reason(
    row: dict[str, Any], form: FormatName, reason: str
) -> None:
    with pytest.raises(BadRowError) as caught:
        formats.convert(row, form)
    assert reason in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([USER, BLUE, GREEN]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "messages"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ["prompt", "chosen", "rejected", "input", "preferred_output", "non_preferred_output", "tools"]


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.sampled_from(list(formats.KEYS)))
def test_whatever_a_row_holds_it_is_a_pair_or_refused(row: dict[str, Any], form: FormatName) -> None:
    formats.detect(row)
    with contextlib.suppress(BadRowError):
        pair = formats.convert(row, form)
        assert pair.chosen
        assert pair.rejected
