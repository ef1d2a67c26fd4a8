"""The forms that preference rows come in, and one pure converter for each to a prompt with two answers.

A converter raises :class:`~finetuned_training.conversations.BadRowError` with a reason that a person can act on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, cast

from finetuned_dpo.params import FormatName
from finetuned_training import conversations
from finetuned_training.conversations import BadRowError, Message, Row

KEYS: dict[FormatName, str] = {
    "preference": '"prompt", "chosen" and "rejected": strings, or lists of messages',
    "implicit_prompt": '"chosen" and "rejected", each with the prompt at its start',
    "openai": '"input": {"messages"}, "preferred_output" and "non_preferred_output"',
}
SIDES: dict[FormatName, tuple[str, str]] = {
    "preference": ("chosen", "rejected"),
    "implicit_prompt": ("chosen", "rejected"),
    "openai": ("preferred_output", "non_preferred_output"),
}

Text = str | list[Message]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and two answers to it: three strings, or three lists of messages."""

    prompt: Text
    chosen: Text
    rejected: Text
    tools: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def is_conversation(self) -> bool:
        """Whether the model's chat template renders it."""
        return isinstance(self.prompt, list)


def detect(row: Row) -> FormatName | None:
    """The form of a row by its keys, or ``None`` if it looks like none of the three."""
    if "preferred_output" in row or "non_preferred_output" in row:
        return "openai"
    if "chosen" not in row or "rejected" not in row:
        return None
    if "prompt" not in row or _begins_with_question(row["chosen"]):
        return "implicit_prompt"  # some sets repeat the question in front of each answer, and beside them as text
    return "preference"


def convert(row: Row, form: FormatName) -> Pair:
    """One row as a pair."""
    match form:
        case "preference":
            return from_preference(row)
        case "implicit_prompt":
            return from_implicit_prompt(row)
        case "openai":
            return from_openai(row)


def from_preference(row: Row) -> Pair:
    """``{"prompt", "chosen", "rejected"}``: strings, or lists of messages; TRL's own form."""
    conversations.require(row, "prompt", "chosen", "rejected")
    values = conversations.decoded_together(row["prompt"], row["chosen"], row["rejected"])
    if all(isinstance(value, str) for value in values):
        return Pair(_string(row, "prompt"), _string(row, "chosen"), _string(row, "rejected"))
    if not all(isinstance(value, list) for value in values):
        raise BadRowError('"prompt", "chosen" and "rejected" must all be strings or all be lists of messages')
    prompt, chosen, rejected = cast("tuple[list[object], list[object], list[object]]", values)
    return _conversation(prompt, chosen, rejected, row, ("chosen", "rejected"))


def from_implicit_prompt(row: Row) -> Pair:
    """``{"chosen", "rejected"}``: whole conversations (or texts) that are alike up to the answers."""
    conversations.require(row, "chosen", "rejected")
    chosen, rejected = conversations.decoded_together(row["chosen"], row["rejected"])
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _split_text(_string(row, "chosen"), _string(row, "rejected"))
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise BadRowError('"chosen" and "rejected" must both be strings or both be lists of messages')
    alike = _alike(chosen, rejected)
    while alike and _role(chosen[alike - 1]) == "assistant":
        alike -= 1
    if not alike:
        raise BadRowError('"chosen" and "rejected" do not begin alike, so there is no prompt')
    return _conversation(chosen[:alike], chosen[alike:], rejected[alike:], row, ("chosen", "rejected"))


def from_openai(row: Row) -> Pair:
    """``{"input": {"messages", "tools"?}, "preferred_output", "non_preferred_output"}``: lists of messages."""
    conversations.require(row, "input", "preferred_output", "non_preferred_output")
    given = row["input"]
    if not isinstance(given, Mapping):
        raise BadRowError(f'"input" is {conversations.kind(given)}, not an object')
    prompt = conversations.turns(given, "messages")
    chosen, rejected = (conversations.turns(row, key) for key in SIDES["openai"])
    return _conversation(prompt, chosen, rejected, given, SIDES["openai"])


def _conversation(
    prompt: list[Any], chosen: list[Any], rejected: list[Any], row: Row, names: tuple[str, str]
) -> Pair:
    question = [conversations.message(turn, number) for number, turn in enumerate(prompt, start=1)]
    if not question:
        raise BadRowError("the prompt has no message")
    last = conversations.check_order(question)
    if last not in ("user", "tool"):
        raise BadRowError(f"the prompt ends with a message from {last}, not from user")
    tools = conversations.tools(row).get("tools", [])
    return Pair(question, _answer(question, chosen, names[0]), _answer(question, rejected, names[1]), tools)


def _answer(question: list[Message], side: list[Any], name: str) -> list[Message]:
    if not side:
        raise BadRowError(f'"{name}" has no message')
    try:
        answer = [conversations.message(turn, number) for number, turn in enumerate(side, start=1)]
        conversations.check_answered([*question, *answer])
    except BadRowError as error:
        raise BadRowError(f'"{name}": {error}') from None
    return answer


def _split_text(chosen: str, rejected: str) -> Pair:
    """The texts cut where they part, at the last space before: TRL would cut a word in two."""
    alike = _alike(chosen, rejected)
    while alike and not chosen[alike - 1].isspace():
        alike -= 1
    prompt = chosen[:alike].rstrip()
    if not prompt:
        raise BadRowError('"chosen" and "rejected" do not begin alike, so there is no prompt')
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not text[len(prompt) :].strip():
            raise BadRowError(f'"{name}" is empty after the prompt')
    return Pair(prompt, chosen[len(prompt) :], rejected[len(prompt) :])


def _alike(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _string(row: Row, key: str) -> str:
    return conversations.text(row[key], f'"{key}"')


def _begins_with_question(value: object) -> bool:
    turns = conversations.decoded(value)
    return isinstance(turns, list) and bool(turns) and _role(turns[0]) in ("system", "developer", "user")


def _role(turn: object) -> object:
    return turn.get("role") if isinstance(turn, Mapping) else None
