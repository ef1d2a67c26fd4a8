"""The five forms that rows come in, and one pure converter for each to the form that TRL trains on.

TRL's own forms are ``{"messages": [...]}``, ``{"prompt": ..., "completion": ...}`` (strings or messages) and
``{"text": ...}``. A converter raises :class:`BadRowError` with a reason that a person can act on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from finetuned_sft.params import FormatName

Row = Mapping[str, Any]
TrainingRow = dict[str, Any]

FORMATS: tuple[FormatName, ...] = get_args(FormatName)

ALPACA_PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)

FOLLOWERS = {
    "start": ("system", "developer", "user"),
    "system": ("user",),
    "developer": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}

KEYS: dict[FormatName, str] = {
    "messages": '"messages": a list of {"role", "content"}',
    "prompt_completion": '"prompt" and "completion"',
    "alpaca": '"instruction" and "output" (and perhaps "input", "system")',
    "sharegpt": '"conversations": a list of {"from", "value"}',
    "text": '"text"',
}


class BadRowError(ValueError):
    """A row that cannot be trained on; the message is the reason, for people."""


def detect(row: Row) -> FormatName | None:
    """The form of a row by its keys, or ``None`` if it looks like none of the five."""
    if "messages" in row:
        return "messages"
    if "conversations" in row or "conversation" in row:
        turns = _decoded(row.get("conversations", row.get("conversation")))
        first = turns[0] if isinstance(turns, list) and turns else None
        return "messages" if isinstance(first, Mapping) and "role" in first else "sharegpt"
    if "prompt" in row and "completion" in row:
        return "prompt_completion"
    if "instruction" in row and "output" in row:
        return "alpaca"
    if "text" in row:
        return "text"
    return None


def convert(row: Row, form: FormatName, *, chat: bool = False) -> TrainingRow:
    """One row in the form that TRL trains on. Raises :class:`BadRowError`.

    ``chat`` makes turns of plain-string prompts and completions (``prompt_completion`` and ``alpaca`` rows),
    for the model's chat template to render.
    """
    match form:
        case "messages":
            return from_messages(row)
        case "sharegpt":
            return from_sharegpt(row)
        case "prompt_completion":
            return from_prompt_completion(row, chat=chat)
        case "alpaca":
            return from_alpaca(row, chat=chat)
        case "text":
            return from_text(row)


def from_messages(row: Row) -> TrainingRow:
    """``{"messages": [{"role", "content"}, …]}``, with ``tools`` passed on if the row has any."""
    key = next((k for k in ("messages", "conversations", "conversation") if k in row), "messages")
    messages = [_message(turn, number) for number, turn in enumerate(_turns(row, key), start=1)]
    _check_order(messages)
    return {"messages": messages, **_tools(row)}


def from_sharegpt(row: Row) -> TrainingRow:
    """``{"conversations": [{"from": "human", "value": "…"}, …]}`` with an optional ``system`` string."""
    key = "conversations" if "conversations" in row else "conversation"
    messages = []
    if row.get("system"):
        messages.append({"role": "system", "content": _text(row["system"], '"system"')})
    for number, turn in enumerate(_turns(row, key), start=1):
        where = f"turn {number}"
        if not isinstance(turn, Mapping) or "from" not in turn or "value" not in turn:
            raise BadRowError(f'{where} has no "from" and "value"')
        speaker = turn["from"]
        role = SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise BadRowError(f"{where} is from {speaker!r}; known are {', '.join(SHAREGPT_ROLES)}")
        messages.append({"role": role, "content": _text(turn["value"], f'"value" of {where}')})
    _check_order(messages)
    return {"messages": messages, **_tools(row)}


def from_prompt_completion(row: Row, *, chat: bool = False) -> TrainingRow:
    """``{"prompt", "completion"}``: two strings, or two lists of messages."""
    _require(row, "prompt", "completion")
    prompt, completion = _decoded_pair(row["prompt"], row["completion"])
    if isinstance(prompt, list) and isinstance(completion, list):
        messages = [_message(turn, number) for number, turn in enumerate([*prompt, *completion], start=1)]
        cut = len(prompt)
        if not 0 < cut < len(messages) or messages[cut]["role"] != "assistant":
            raise BadRowError(
                '"prompt" needs messages, and "completion" must begin with one of the assistant'
            )
        _check_order(messages)
        return {"prompt": messages[:cut], "completion": messages[cut:], **_tools(row)}
    if isinstance(prompt, list) or isinstance(completion, list):
        raise BadRowError('"prompt" and "completion" must both be strings or both be lists of messages')
    question, answer = _text(row["prompt"], '"prompt"'), _text(row["completion"], '"completion"')
    return _exchange(question, answer) if chat else {"prompt": question, "completion": answer}


def from_alpaca(row: Row, *, chat: bool = False) -> TrainingRow:
    """``{"instruction", "output", "input"?, "system"?}``.

    As turns, the instruction and the input are joined by an empty line, the way LLaMA-Factory and axolotl do;
    as plain text they are put into Stanford Alpaca's own prompt.
    """
    _require(row, "instruction", "output")
    instruction, answer = _text(row["instruction"], '"instruction"'), _text(row["output"], '"output"')
    given = _text(row["input"], '"input"') if row.get("input") else ""
    system = _text(row["system"], '"system"') if row.get("system") else ""
    if chat:
        return _exchange(f"{instruction}\n\n{given}" if given else instruction, answer, system=system)
    prompt = ALPACA_PROMPT_WITH_INPUT if given else ALPACA_PROMPT
    text = prompt.format(instruction=instruction, input=given)
    return {"prompt": f"{system}\n\n{text}" if system else text, "completion": answer}


def from_text(row: Row) -> TrainingRow:
    """``{"text": "…"}``, trained on as it stands."""
    _require(row, "text")
    return {"text": _text(row["text"], '"text"')}


def _exchange(question: str, answer: str, *, system: str = "") -> TrainingRow:
    opening = [{"role": "system", "content": system}] if system else []
    return {
        "prompt": [*opening, {"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def _require(row: Row, *keys: str) -> None:
    for key in keys:
        if row.get(key) is None:
            found = ", ".join(f'"{name}"' for name in row) or "nothing"
            raise BadRowError(f'"{key}" is missing; the row has {found}')


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadRowError(f"{where} is {_kind(value)}, not a string")
    if not value.strip():
        raise BadRowError(f"{where} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRowError(f"{where} has a lone surrogate, which is no character") from None
    return value


def _turns(row: Row, key: str) -> list[Any]:
    _require(row, key)
    turns = _decoded(row[key])
    if not isinstance(turns, list):
        raise BadRowError(f'"{key}" is {_kind(turns)}, not a list')
    if not turns:
        raise BadRowError(f'"{key}" is empty')
    return turns


def _message(turn: object, number: int) -> dict[str, Any]:
    where = f"message {number}"
    if not isinstance(turn, Mapping):
        raise BadRowError(f"{where} is {_kind(turn)}, not an object")
    role = turn.get("role")
    if role not in ROLES:
        raise BadRowError(f"{where} has the role {role!r}; known are {', '.join(ROLES)}")
    extra = {key: turn[key] for key in ("name", "tool_calls", "tool_call_id") if turn.get(key) is not None}
    if role == "assistant" and extra.get("tool_calls") and not turn.get("content"):
        return {"role": role, "content": "", **extra}
    return {"role": role, "content": _content(turn.get("content"), f"the content of {where}"), **extra}


def _content(value: object, where: str) -> str:
    """A string, or OpenAI's list of text parts, which is joined."""
    if not isinstance(value, list):
        return _text(value, where)
    parts = []
    for part in value:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise BadRowError(f"{where} has a part that is not text; only text can be trained on")
        parts.append(_text(part.get("text"), where))
    return _text("".join(parts), where)


def _check_order(messages: list[dict[str, Any]]) -> None:
    """System first if at all; then user and assistant in turns, with tools' answers before the assistant's."""
    before = "start"
    for number, message in enumerate(messages, start=1):
        role = message["role"]
        if role not in FOLLOWERS[before]:
            expected = " or ".join(FOLLOWERS[before])
            after = "at the start" if before == "start" else f"after {before}"
            raise BadRowError(f"message {number} is from {role}; {after} comes {expected}")
        before = role
    if before != "assistant":
        raise BadRowError(
            f"the last message is from {before}, so there is no answer to learn; end with assistant"
        )


def _tools(row: Row) -> TrainingRow:
    tools = _decoded(row.get("tools"))
    if not tools:
        return {}
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise BadRowError(f'"tools" is {_kind(tools)}, not a list of objects')
    return {"tools": tools}


def _decoded(value: object) -> object:
    """CSV and Parquet have lists as JSON in a string."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _decoded_pair(prompt: object, completion: object) -> tuple[object, object]:
    """Both as messages if the strings among them hold such. Other JSON in a string is text to learn."""
    decoded = _decoded(prompt), _decoded(completion)
    strings = [new for old, new in zip((prompt, completion), decoded, strict=True) if isinstance(old, str)]
    return decoded if all(map(_are_messages, strings)) else (prompt, completion)


def _are_messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and "role" in item for item in value)
    )


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
