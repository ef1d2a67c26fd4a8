"""The five forms that rows come in, and one pure converter for each to the form that TRL trains on.

TRL's own forms are ``{"messages": [...]}``, ``{"prompt": ..., "completion": ...}`` (strings or messages) and
``{"text": ...}``. A converter raises :class:`BadRowError` with a reason that a person can act on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from finetuned_training import conversations

FormatName = Literal["messages", "prompt_completion", "alpaca", "sharegpt", "text"]

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


def detect(row: conversations.Row) -> FormatName | None:
    """The form of a row by its keys, or ``None`` if it looks like none of the five."""
    if "messages" in row:
        return "messages"
    if "conversations" in row or "conversation" in row:
        turns = conversations.decoded(row.get("conversations", row.get("conversation")))
        first = turns[0] if isinstance(turns, list) and turns else None
        return "messages" if isinstance(first, Mapping) and "role" in first else "sharegpt"
    if "prompt" in row and "completion" in row:
        return "prompt_completion"
    if "instruction" in row and "output" in row:
        return "alpaca"
    if "text" in row:
        return "text"
    return None


def convert(row: conversations.Row, form: FormatName, *, chat: bool = False) -> TrainingRow:
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


def from_messages(row: conversations.Row) -> TrainingRow:
    """``{"messages": [{"role", "content"}, …]}``, with ``tools`` passed on if the row has any."""
    key = next((k for k in ("messages", "conversations", "conversation") if k in row), "messages")
    messages = [
        conversations.message(turn, number)
        for number, turn in enumerate(conversations.turns(row, key), start=1)
    ]
    conversations.check_answered(messages)
    return {"messages": messages, **conversations.tools(row)}


def from_sharegpt(row: conversations.Row) -> TrainingRow:
    """``{"conversations": [{"from": "human", "value": "…"}, …]}`` with an optional ``system`` string."""
    key = "conversations" if "conversations" in row else "conversation"
    messages = []
    if row.get("system"):
        messages.append({"role": "system", "content": conversations.text(row["system"], '"system"')})
    for number, turn in enumerate(conversations.turns(row, key), start=1):
        where = f"turn {number}"
        if not isinstance(turn, Mapping) or "from" not in turn or "value" not in turn:
            raise conversations.BadRowError(f'{where} has no "from" and "value"')
        speaker = turn["from"]
        role = SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise conversations.BadRowError(
                f"{where} is from {speaker!r}; known are {', '.join(SHAREGPT_ROLES)}"
            )
        messages.append({"role": role, "content": conversations.text(turn["value"], f'"value" of {where}')})
    conversations.check_answered(messages)
    return {"messages": messages, **conversations.tools(row)}


def from_prompt_completion(row: conversations.Row, *, chat: bool = False) -> TrainingRow:
    """``{"prompt", "completion"}``: two strings, or two lists of messages."""
    conversations.require(row, "prompt", "completion")
    prompt, completion = conversations.decoded_together(row["prompt"], row["completion"])
    if isinstance(prompt, list) and isinstance(completion, list):
        messages = [
            conversations.message(turn, number) for number, turn in enumerate([*prompt, *completion], start=1)
        ]
        cut = len(prompt)
        if not 0 < cut < len(messages) or messages[cut]["role"] != "assistant":
            raise conversations.BadRowError(
                '"prompt" needs messages, and "completion" must begin with one of the assistant'
            )
        conversations.check_answered(messages)
        return {"prompt": messages[:cut], "completion": messages[cut:], **conversations.tools(row)}
    if isinstance(prompt, list) or isinstance(completion, list):
        raise conversations.BadRowError(
            '"prompt" and "completion" must both be strings or both be lists of messages'
        )
    question, answer = (
        conversations.text(row["prompt"], '"prompt"'),
        conversations.text(row["completion"], '"completion"'),
    )
    return _exchange(question, answer) if chat else {"prompt": question, "completion": answer}


def from_alpaca(row: conversations.Row, *, chat: bool = False) -> TrainingRow:
    """``{"instruction", "output", "input"?, "system"?}``.

    As turns, the instruction and the input are joined by an empty line, the way LLaMA-Factory and axolotl do;
    as plain text they are put into Stanford Alpaca's own prompt.
    """
    conversations.require(row, "instruction", "output")
    instruction, answer = (
        conversations.text(row["instruction"], '"instruction"'),
        conversations.text(row["output"], '"output"'),
    )
    given = conversations.text(row["input"], '"input"') if row.get("input") else ""
    system = conversations.text(row["system"], '"system"') if row.get("system") else ""
    if chat:
        return _exchange(f"{instruction}\n\n{given}" if given else instruction, answer, system=system)
    prompt = ALPACA_PROMPT_WITH_INPUT if given else ALPACA_PROMPT
    text = prompt.format(instruction=instruction, input=given)
    return {"prompt": f"{system}\n\n{text}" if system else text, "completion": answer}


def from_text(row: conversations.Row) -> TrainingRow:
    """``{"text": "…"}``, trained on as it stands."""
    conversations.require(row, "text")
    return {"text": conversations.text(row["text"], '"text"')}


def _exchange(question: str, answer: str, *, system: str = "") -> TrainingRow:
    opening = [{"role": "system", "content": system}] if system else []
    return {
        "prompt": [*opening, {"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }
