"""The prompt of a row, in whichever known form it comes, and the answer that it has, if it has one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from finetuned_sdk import JobError, RowProblem
from finetuned_training import chat, conversations, dataset, supervised_rows
from finetuned_training.chat import Tokenizer
from finetuned_training.conversations import BadRowError, Message, Row

FormatName = Literal[
    "prompt", "prompt_completion", "messages", "alpaca", "sharegpt", "preference", "openai", "scored"
]
KEYS: dict[FormatName, str] = {
    "prompt": '"prompt": a string, or a list of messages',
    "prompt_completion": supervised_rows.KEYS["prompt_completion"],
    "messages": supervised_rows.KEYS["messages"],
    "alpaca": supervised_rows.KEYS["alpaca"],
    "sharegpt": supervised_rows.KEYS["sharegpt"],
    "preference": '"chosen", with the prompt beside it or at its start',
    "openai": '"input": {"messages"} and "preferred_output"',
    "scored": '"prompt_ids", "completion_ids" and "teacher_log_probs"',
}
Text = str | list[Message]


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and perhaps its answer: strings, or lists of messages."""

    prompt: Text
    answer: Text | None = None
    tools: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenizedQuestion:
    """Token ids of a prompt, and of its answer if the row has one. ``number`` is the row's, from 1."""

    number: int
    prompt_ids: list[int]
    answer_ids: list[int] | None


def detect(row: Row) -> FormatName | None:
    """The form of a row by its keys, or ``None`` if it has no prompt that is known."""
    if "prompt_ids" in row:
        return "scored"
    if "preferred_output" in row:
        return "openai"
    if "chosen" in row:
        return "preference"
    found = supervised_rows.detect(row)
    if found is not None and found != "text":
        return found
    return "prompt" if "prompt" in row else None


def convert(row: Row, form: FormatName, *, as_chat: bool = False) -> Question:
    """The question of a row. ``as_chat`` makes turns of plain strings. Raises :class:`BadRowError`."""
    match form:
        case "prompt" | "prompt_completion":  # of some rows the answer may be known
            if row.get("completion") is None:
                return _prompt(row, row.get("prompt"), as_chat=as_chat)
            return _of_supervised(supervised_rows.convert(row, "prompt_completion", chat=as_chat))
        case "preference":
            if "prompt" not in row:
                return _messages({**row, "messages": row.get("chosen")})
            return _prompt(row, row.get("prompt"), row.get("chosen"), as_chat=as_chat)
        case "openai":
            conversations.require(row, "input")
            given = row["input"]
            if not isinstance(given, Mapping):
                raise BadRowError(f'"input" is {conversations.kind(given)}, not an object')
            return _prompt(given, given.get("messages"), row.get("preferred_output"))
        case "messages":
            return _messages(row)
        case "scored":
            raise BadRowError("scored rows are tokens already; set precomputed_scores=true")
        case _:
            return _of_supervised(supervised_rows.convert(row, form, chat=as_chat))


def _prompt(row: Row, prompt: object, answer: object = None, *, as_chat: bool = False) -> Question:
    prompt = conversations.decoded(prompt)
    answer = conversations.decoded(answer)
    if isinstance(prompt, list):
        turns = [conversations.message(turn, number) for number, turn in enumerate(prompt, start=1)]
        return Question(_asked(turns), _answered(turns, answer), conversations.tools(row).get("tools", []))
    question = conversations.text(prompt, '"prompt"')
    reply = None if answer is None else conversations.text(answer, "the answer")
    if not as_chat:
        return Question(question, reply)
    turns = [{"role": "user", "content": question}]
    return Question(turns, None if reply is None else [{"role": "assistant", "content": reply}])


def _asked(turns: list[Message]) -> list[Message]:
    if not turns:
        raise BadRowError("the prompt has no message")
    last = conversations.check_order(turns)
    if last not in {"user", "tool"}:
        raise BadRowError(f"the prompt ends with a message from {last}, not from user")
    return turns


def _answered(question: list[Message], answer: object) -> list[Message] | None:
    if answer is None:
        return None
    if not isinstance(answer, list):
        raise BadRowError("the prompt is a list of messages, and its answer is not")
    turns = [conversations.message(turn, number) for number, turn in enumerate(answer, start=1)]
    conversations.check_answered([*question, *turns])
    return turns


def _messages(row: Row) -> Question:
    """A conversation: its last turn is the answer if it is the assistant's, and else there is none."""
    key = next((k for k in ("messages", "conversations", "conversation") if k in row), "messages")
    turns = [
        conversations.message(turn, number)
        for number, turn in enumerate(conversations.turns(row, key), start=1)
    ]
    tools = conversations.tools(row).get("tools", [])
    if conversations.check_order(turns) == "assistant":
        return Question(_asked(turns[:-1]), turns[-1:], tools)
    return Question(_asked(turns), None, tools)


def _of_supervised(row: supervised_rows.TrainingRow) -> Question:
    if "messages" in row:
        return _messages(row)
    return Question(row["prompt"], row["completion"], row.get("tools", []))


def renders_strings(
    apply_chat_template: bool | None, form: FormatName, tokenizer: Tokenizer, model: str
) -> bool:
    """Whether plain strings become turns. Raises ``JobError`` if the rows need a chat template and there is none."""
    template = chat.chat_template(tokenizer)
    wanted = apply_chat_template
    as_chat = (template is not None if wanted is None else wanted) if form == "alpaca" else bool(wanted)
    if template is None and (as_chat or form in {"messages", "sharegpt", "openai"}):
        raise JobError(
            f"The model {model} has no chat template, so {form} rows cannot be rendered; use its instruct variant, or "
            "rows with prompt strings.",
            code="chat_template_missing",
        )
    return as_chat


def tokenized_questions(
    path: str, split: str, form: FormatName, tokenizer: Tokenizer, *, as_chat: bool
) -> Iterator[TokenizedQuestion | RowProblem]:
    """Every row of a dataset as tokens, in order; bad ones as problems in their place."""
    for item in dataset.read_rows(path, split):
        if isinstance(item, RowProblem):
            yield item
            continue
        try:
            yield tokenize(convert(item.data, form, as_chat=as_chat), item.number, tokenizer)
        except BadRowError as error:
            yield item.problem(str(error))


def tokenize(question: Question, number: int, tokenizer: Tokenizer) -> TokenizedQuestion:
    """The prompt as the student will be asked it, and the answer as it would have to go on."""
    prompt, answer = question.prompt, question.answer
    if isinstance(prompt, str):
        prompt_ids = chat.plain_ids(tokenizer, prompt)
        if answer is None:
            return TokenizedQuestion(number, prompt_ids, None)
        assert isinstance(answer, str)
        ids = chat.plain_ids(tokenizer, chat.with_eos(prompt + answer, tokenizer))
    else:
        tools = question.tools or None
        prompt_ids = chat.chat_ids(tokenizer, prompt, tools=tools, add_generation_prompt=True)
        if answer is None:
            return TokenizedQuestion(number, prompt_ids, None)
        assert isinstance(answer, list)
        ids = chat.chat_ids(tokenizer, prompt + answer, tools=tools)
    return TokenizedQuestion(number, prompt_ids, ids[chat.prompt_length(prompt_ids, ids) :])
