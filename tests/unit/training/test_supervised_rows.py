from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from finetuned_training import supervised_rows
from finetuned_training.conversations import BadRowError
from finetuned_training.supervised_rows import FormatName

# What a row may hold: any text that has more than white space and no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, str]]:
    system = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    turns = draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
    spoken = [
        {"role": role, "content": content}
        for question, answer in turns
        for role, content in (("user", question), ("assistant", answer))
    ]
    return system + spoken


@given(conversations())
def test_messages_come_out_as_they_went_in(messages: list[dict[str, str]]) -> None:
    assert supervised_rows.convert({"messages": messages}, "messages") == {"messages": messages}
    assert supervised_rows.convert({"messages": json.dumps(messages)}, "messages") == {"messages": messages}


@given(conversations())
def test_sharegpt_turns_become_the_same_messages(messages: list[dict[str, str]]) -> None:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": names[message["role"]], "value": message["content"]} for message in messages]
    assert supervised_rows.convert({"conversations": turns}, "sharegpt") == {"messages": messages}


@given(texts, texts)
def test_prompts_and_completions_stay_strings_or_become_turns(prompt: str, completion: str) -> None:
    row = {"prompt": prompt, "completion": completion}
    turns = {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }
    assert supervised_rows.convert(row, "prompt_completion") == row
    assert supervised_rows.convert(row, "prompt_completion", chat=True) == turns
    assert supervised_rows.convert(turns, "prompt_completion") == turns


json_texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab"),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "role"]), inner),
).map(json.dumps)
MESSAGES = json.dumps([{"role": "user", "content": "q"}])


@given(json_texts | st.just("[" * 100_000) | st.just(MESSAGES), json_texts)
@example("List three fruits", '["apple", "pear", "plum"]')
@example("[1, 2]", "3")
@example(MESSAGES, '[{"id": 1}]')
def test_json_that_holds_no_messages_is_text_to_learn(prompt: str, completion: str) -> None:
    assume('"role"' not in completion)
    row = {"prompt": prompt, "completion": completion}
    assert supervised_rows.convert(row, "prompt_completion") == row


@given(texts, texts, st.none() | st.just("") | texts)
def test_alpaca_rows_keep_instruction_input_and_output(
    instruction: str, output: str, given_: str | None
) -> None:
    row = {"instruction": instruction, "output": output, "input": given_}
    if given_ is not None and not given_.strip() and given_:
        return  # white space alone is refused, see below
    turns = supervised_rows.convert(row, "alpaca", chat=True)
    content = turns["prompt"][0]["content"]
    assert content == (f"{instruction}\n\n{given_}" if given_ else instruction)
    assert turns["completion"] == [{"role": "assistant", "content": output}]
    plain = supervised_rows.convert(row, "alpaca")
    assert f"### Instruction:\n{instruction}\n\n" in plain["prompt"]
    assert ("### Input:" in plain["prompt"]) >= bool(given_)
    assert plain["completion"] == output


def test_a_system_text_comes_first() -> None:
    alpaca = {"instruction": "do", "output": "done", "system": "be brief"}
    assert supervised_rows.convert(alpaca, "alpaca", chat=True)["prompt"][0] == {
        "role": "system",
        "content": "be brief",
    }
    assert supervised_rows.convert(alpaca, "alpaca")["prompt"].startswith("be brief\n\n")
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    converted = supervised_rows.convert({"conversations": turns, "system": "be brief"}, "sharegpt")
    assert converted["messages"][0] == {"role": "system", "content": "be brief"}


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "x"}]}
    assert supervised_rows.convert(row, "messages")["messages"][0]["content"] == "one two"


def test_calls_of_tools_keep_their_fields_and_the_tools() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "assistant", "content": "two"},
    ]
    tools = [{"type": "function", "function": {"name": "add"}}]
    converted = supervised_rows.convert({"messages": messages, "tools": json.dumps(tools)}, "messages")
    assert converted["tools"] == tools
    assert converted["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert converted["messages"][2]["tool_call_id"] == "c1"


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"messages": []}, "messages"),
        ({"conversations": [{"from": "human", "value": "q"}]}, "sharegpt"),
        ({"conversations": [{"role": "user", "content": "q"}]}, "messages"),
        ({"conversations": '[{"from": "human", "value": "q"}]'}, "sharegpt"),
        ({"prompt": "p", "completion": "c", "id": 1}, "prompt_completion"),
        ({"instruction": "i", "output": "o"}, "alpaca"),
        ({"text": "t"}, "text"),
        ({"question": "q"}, None),
        ({}, None),
    ],
)
def test_the_form_is_told_by_the_keys(row: dict[str, Any], form: FormatName | None) -> None:
    assert supervised_rows.detect(row) == form


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


@pytest.mark.parametrize(
    ("form", "row", "reason"),
    [
        ("messages", {}, '"messages" is missing; the row has nothing'),
        ("messages", {"messages": None}, '"messages" is missing'),
        ("messages", {"messages": {}}, '"messages" is an object, not a list'),
        ("messages", {"messages": []}, '"messages" is empty'),
        ("messages", {"messages": ["hello"]}, "message 1 is a string, not an object"),
        ("messages", {"messages": [{"content": "x"}]}, "message 1 has the role None; known are"),
        ("messages", turns("human"), "message 1 has the role 'human'; known are system"),
        ("messages", {"messages": [{"role": "user"}]}, "the content of message 1 is null, not a string"),
        ("messages", {"messages": [{"role": "user", "content": 7}]}, "is a number, not a string"),
        ("messages", {"messages": [{"role": "user", "content": " \n"}]}, "the content of message 1 is empty"),
        ("messages", {"messages": [{"role": "user", "content": "\ud800"}]}, "lone surrogate"),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "a part that is not text",
        ),
        (
            "messages",
            turns("assistant"),
            "message 1 is from assistant; at the start comes system or developer or user",
        ),
        ("messages", turns("user", "user"), "message 2 is from user; after user comes assistant"),
        ("messages", turns("user", "assistant", "assistant"), "message 3 is from assistant; after assistant"),
        ("messages", turns("user", "system", "assistant"), "message 2 is from system"),
        (
            "messages",
            turns("user", "assistant", "user"),
            "the last message is from user, so there is no answer",
        ),
        ("messages", turns("user", "assistant") | {"tools": {"a": 1}}, '"tools" is an object'),
        ("sharegpt", {"conversations": [{"from": "human"}]}, 'turn 1 has no "from" and "value"'),
        ("sharegpt", {"conversations": [{"from": "robot", "value": "x"}]}, "turn 1 is from 'robot'"),
        ("sharegpt", {"conversations": [{"from": "human", "value": ""}]}, '"value" of turn 1 is empty'),
        ("prompt_completion", {"prompt": "p"}, '"completion" is missing; the row has "prompt"'),
        ("prompt_completion", {"prompt": "p", "completion": ""}, '"completion" is empty'),
        ("prompt_completion", {"prompt": 1, "completion": "c"}, '"prompt" is a number'),
        ("prompt_completion", {"prompt": [], "completion": "c"}, "must both be strings or both be lists"),
        ("prompt_completion", {"prompt": [], "completion": []}, '"prompt" needs messages'),
        (
            "prompt_completion",
            {"prompt": turns("user")["messages"], "completion": turns("user")["messages"]},
            "must begin with one of the assistant",
        ),
        ("alpaca", {"instruction": "i"}, '"output" is missing'),
        ("alpaca", {"instruction": "i", "output": "o", "input": 3}, '"input" is a number'),
        ("alpaca", {"instruction": "i", "output": "o", "input": "  "}, '"input" is empty'),
        ("alpaca", {"instruction": True, "output": "o"}, '"instruction" is a boolean'),
        ("text", {"text": ["a"]}, '"text" is a list, not a string'),
        ("text", {"body": "a"}, '"text" is missing; the row has "body"'),
    ],
)
def test_a_bad_row_says_what_is_wrong(form: FormatName, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRowError) as caught:
        supervised_rows.convert(row, form)
    assert reason in str(caught.value)


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(supervised_rows.FORMATS),
    st.dictionaries(
        st.sampled_from(
            [
                "messages",
                "conversations",
                "prompt",
                "completion",
                "instruction",
                "output",
                "input",
                "text",
                "tools",
            ]
        ),
        anything | st.lists(st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), anything)),
    ),
)
def test_whatever_a_row_holds_it_converts_or_is_refused(form: FormatName, row: dict[str, Any]) -> None:
    supervised_rows.detect(row)
    with contextlib.suppress(BadRowError):
        assert supervised_rows.convert(row, form).keys() & {"messages", "prompt", "text"}
