"""Held-out rows: what the model is asked and what it should answer. Pure but for reading the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from finetuned_sdk.errors import BadDatasetError, JobError, RowProblem

Message = dict[str, Any]


class _BadRowError(ValueError):
    """The row cannot be asked; the message is the reason."""


@dataclass(frozen=True, slots=True)
class HeldOutRow:
    """One question and its answer. A ``prompt`` of messages is rendered with the model's chat template."""

    prompt: str | tuple[Message, ...]
    expected: str

    def question(self) -> str:
        """What a person would call the prompt: the text, or what the user said last."""
        if isinstance(self.prompt, str):
            return self.prompt
        return next((m["content"] for m in reversed(self.prompt) if m["role"] == "user"), "")


def load(dataset: str, limit: int | None = None, *, read_at_most: int | None = None) -> list[HeldOutRow]:
    """The first ``limit`` rows of a JSONL file, of its first ``read_at_most`` bytes if that is given.

    Raises ``JobError`` if the file cannot be read, ``BadDatasetError`` with line numbers if rows are malformed
    or there are none.
    """
    path = Path(dataset).expanduser()
    rows: list[HeldOutRow] = []
    problems: list[RowProblem] = []
    try:
        if not path.is_file():
            raise _cannot_read(dataset, "it is no file" if path.exists() else "there is no such file")
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file, read_at_most), start=1):
                if limit is not None and len(rows) >= limit:
                    break
                if not line.strip():
                    continue
                try:
                    rows.append(parse(json.loads(line)))
                except _BadRowError as error:
                    problems.append(RowProblem(number, str(error)))
                except (ValueError, RecursionError):
                    problems.append(RowProblem(number, "is not JSON"))
            whole = read_at_most is None or file.tell() < read_at_most
    except OSError as error:
        raise _cannot_read(dataset, error.strerror or str(error)) from error
    if not rows and not problems and whole:
        problems = [RowProblem(1, "the file has no rows")]
    if problems:
        raise BadDatasetError(
            dataset,
            problems,
            remedy='A held-out row is {"prompt": …, "completion": …} or {"messages": […]} ending with the answer.',
        )
    return rows


def _lines(file: BinaryIO, read_at_most: int | None) -> Iterator[bytes]:
    """The lines of a file; a line that ends after ``read_at_most`` bytes is left out."""
    if read_at_most is None:
        yield from file
        return
    while line := file.readline(read_at_most - file.tell()):
        if file.tell() == read_at_most and not line.endswith(b"\n"):
            return
        yield line


def _cannot_read(dataset: str, reason: str) -> JobError:
    return JobError(
        f"The validation dataset {dataset} cannot be read ({reason}); correct callbacks.validation.dataset.",
        code="bad_dataset",
    )


def parse(row: Any) -> HeldOutRow:
    """One row. Raises a ``ValueError`` whose message is the reason."""
    if not isinstance(row, Mapping):
        raise _BadRowError("is no JSON object")
    if "messages" in row:
        messages = _messages(row["messages"], "messages")
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise _BadRowError('"messages" does not end with an assistant message after a question')
        return HeldOutRow(messages[:-1], messages[-1]["content"])
    if "prompt" not in row or "completion" not in row:
        raise _BadRowError('has neither "messages" nor "prompt" and "completion"')
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(completion, list):
        answer = _messages(completion, "completion")
        if len(answer) != 1 or answer[0]["role"] != "assistant":
            raise _BadRowError('"completion" must be one assistant message')
        completion = answer[0]["content"]
    if not isinstance(completion, str):
        raise _BadRowError('"completion" is neither text nor messages')
    if isinstance(prompt, str):
        return HeldOutRow(prompt, completion)
    return HeldOutRow(_messages(prompt, "prompt"), completion)


def _messages(value: Any, key: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _BadRowError(f'"{key}" is not a list of messages')
    for message in value:
        if (
            not isinstance(message, Mapping)
            or not isinstance(message.get("role"), str)
            or not isinstance(message.get("content"), str)
        ):
            raise _BadRowError(f'a message of "{key}" has no "role" and "content"')
    return tuple(dict(message) for message in value)
