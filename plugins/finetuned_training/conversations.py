"""Conversations as rows hold them: lists of messages with roles, checked so that a person can act on what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
Message = dict[str, Any]

FOLLOWERS = {
    "start": ("system", "developer", "user"),
    "system": ("user",),
    "developer": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
ROLES = ("system", "developer", "user", "assistant", "tool")


class BadRowError(ValueError):
    """A row that cannot be trained on; the message is the reason, for people."""


def require(row: Row, *keys: str) -> None:
    """Raise :class:`BadRowError` unless the row has all of the keys."""
    for key in keys:
        if row.get(key) is None:
            found = ", ".join(f'"{name}"' for name in row) or "nothing"
            raise BadRowError(f'"{key}" is missing; the row has {found}')


def text(value: object, where: str) -> str:
    """The value if it is text that can be trained on, else :class:`BadRowError`; ``where`` names it for people."""
    if not isinstance(value, str):
        raise BadRowError(f"{where} is {kind(value)}, not a string")
    if not value.strip():
        raise BadRowError(f"{where} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRowError(f"{where} has a lone surrogate, which is no character") from None
    return value


def turns(row: Row, key: str) -> list[Any]:
    """The list under a key, as it is or as JSON in a string; not empty."""
    require(row, key)
    found = decoded(row[key])
    if not isinstance(found, list):
        raise BadRowError(f'"{key}" is {kind(found)}, not a list')
    if not found:
        raise BadRowError(f'"{key}" is empty')
    return found


def message(turn: object, number: int) -> Message:
    """One message with what a chat template uses of it; ``number`` names it for people."""
    where = f"message {number}"
    if not isinstance(turn, Mapping):
        raise BadRowError(f"{where} is {kind(turn)}, not an object")
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
        return text(value, where)
    parts = []
    for part in value:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise BadRowError(f"{where} has a part that is not text; only text can be trained on")
        parts.append(text(part.get("text"), where))
    return text("".join(parts), where)


def check_order(messages: list[Message]) -> str:
    """System first if at all; then user and assistant in turns, with tools' answers before the assistant's.

    Returns the role of the last.
    """
    before = "start"
    for number, each in enumerate(messages, start=1):
        role: str = each["role"]
        if role not in FOLLOWERS[before]:
            expected = " or ".join(FOLLOWERS[before])
            after = "at the start" if before == "start" else f"after {before}"
            raise BadRowError(f"message {number} is from {role}; {after} comes {expected}")
        before = role
    return before


def check_answered(messages: list[Message]) -> None:
    """The order, and the assistant's at the end."""
    last = check_order(messages)
    if last != "assistant":
        raise BadRowError(
            f"the last message is from {last}, so there is no answer to learn; end with assistant"
        )


def tools(row: Row) -> dict[str, Any]:
    """The row's ``tools`` under that key; nothing if it has none."""
    found = decoded(row.get("tools"))
    if not found:
        return {}
    if not isinstance(found, list) or not all(isinstance(tool, Mapping) for tool in found):
        raise BadRowError(f'"tools" is {kind(found)}, not a list of objects')
    return {"tools": found}


def decoded(value: object) -> object:
    """CSV and Parquet have lists as JSON in a string."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def decoded_together(*values: object) -> tuple[object, ...]:
    """All as messages if the strings among them hold such. Other JSON in a string is text to learn."""
    found = tuple(map(decoded, values))
    strings = [new for old, new in zip(values, found, strict=True) if isinstance(old, str)]
    return found if all(map(are_messages, strings)) else values


def are_messages(value: object) -> bool:
    """Whether it is a list of what may be messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and "role" in item for item in value)
    )


def kind(value: object) -> str:
    """What a JSON value is, in words."""
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
