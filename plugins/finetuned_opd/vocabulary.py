"""Whether student and teacher mean the same tokens by the same ids. No torch: the daemon looks at this on submission.

Two sizes are told apart: how many tokens a tokenizer has, and how many logits a model has (``vocab_size``), which is
often padded: 151,936 and 152,064 for models of one family that share a tokenizer of 151,665 (TRL, issue 2215).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetuned_sdk import JobError, RefusedError
from finetuned_training.small_json import open_regular, read_object

CODE: Final = "vocabulary_mismatch"
MAX_BYTES: Final = 64 << 20  # of a tokenizer.json; those of 262,144 tokens have 34 MB
PROBED: Final = 256  # tokens that a server is asked for
LEAST_COMPARED: Final = 16
_UNPRINTABLE: Final = "\ufffd"  # where a token is a part of a character


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What ids mean: ``tokens`` by id, and how many logits there are. ``None`` where that cannot be told."""

    size: int | None
    tokens: Mapping[int, str] | None

    @property
    def counted(self) -> str:
        """How large it is, for a message."""
        tokens = "tokens that cannot be told" if self.tokens is None else f"{len(self.tokens):,} tokens"
        return tokens if self.size is None else f"{tokens} and vocab_size {self.size:,}"


def read(directory: Path) -> Vocabulary:
    """The vocabulary of a model's directory, from ``config.json`` and ``tokenizer.json``, where these can be read."""
    return Vocabulary(_size(directory / "config.json"), _tokens(directory / "tokenizer.json"))


def of_tokenizer(tokenizer: Any, size: int | None) -> Vocabulary:
    """The vocabulary of a tokenizer of transformers; ``size`` is its model's ``vocab_size``."""
    return Vocabulary(size, {number: token for token, number in tokenizer.get_vocab().items()})


def difference(student: Vocabulary, teacher: Vocabulary, *, full: bool) -> str | None:
    """Why the teacher's scores would not be of the student's tokens, and what to do; ``None`` if they are.

    ``full``: the loss compares all logits of both, so that there must be equally many.
    """
    if student.tokens is not None and teacher.tokens is not None:
        first = _first_difference(student.tokens, teacher.tokens)
        if first is not None:
            return (
                f"Student and teacher do not have the same vocabulary: token {first} is"
                f" {_quoted(student.tokens, first)} to the student ({student.counted}) and"
                f" {_quoted(teacher.tokens, first)} to the teacher ({teacher.counted}). Take a teacher of the same family."
            )
    if full and None not in {student.size, teacher.size} and student.size != teacher.size:
        return (
            f"The student has {student.size:,} logits and the teacher {teacher.size:,} (vocab_size), so their whole"
            " distributions cannot be compared, though they may share a tokenizer. Compare the teacher's likeliest tokens"
            " (top_k) or use the policy gradient, which need only tokens that both have; or resize the student's"
            f" embeddings to {teacher.size:,}."
        )
    return None


def check(student: Path, teacher: Path, *, full: bool, param: str) -> None:
    """Refuse a teacher whose files say that it has another vocabulary. Raises ``RefusedError``. Reads a few MB."""
    if _same_bytes(student / "tokenizer.json", teacher / "tokenizer.json"):
        shared: dict[int, str] = {}
        ours, theirs = (Vocabulary(_size(each / "config.json"), shared) for each in (student, teacher))
    else:
        ours, theirs = read(student), read(teacher)
    reason = difference(ours, theirs, full=full)
    if reason is not None:
        raise RefusedError(reason, param=param, code=CODE)


def require_same(student: Vocabulary, teacher: Vocabulary, *, full: bool) -> None:
    """Raise ``JobError`` if the teacher has another vocabulary."""
    reason = difference(student, teacher, full=full)
    if reason is not None:
        raise JobError(reason, code=CODE)


def require_known(completions: Iterable[Sequence[int]], size: int) -> None:
    """Raise ``JobError`` if there is a token that a teacher of so many logits has no score for: the student's has more."""
    highest = max((max(each) for each in completions), default=0)
    if highest >= size:
        raise JobError(
            f"The student answered with token {highest}, and the teacher has {size:,} logits (vocab_size); resize the"
            f" student's embeddings to {size:,}, or take a teacher that has as many as the student.",
            code=CODE,
        )


def probe(tokenizer: Any) -> list[int]:
    """Ids to ask a server for, spread over all that the tokenizer has."""
    ids = sorted(tokenizer.get_vocab().values())
    step = max(1, len(ids) // PROBED)
    return [*ids[:-1:step], ids[-1]]


def require_texts(tokenizer: Any, ids: Sequence[int], texts: Sequence[str | None]) -> None:
    """Raise ``JobError`` if a server's ``texts`` of the tokens ``ids`` are not the student's.

    Tokens are compared without the space around them, which servers tell differently, and where they are whole
    characters. A server that tells too few to compare is taken at its word.
    """
    compared = []
    for token, text in zip(ids, texts, strict=True):
        own, told = tokenizer.decode([token]).strip(), (text or "").strip()
        if own and told and _UNPRINTABLE not in own + told:
            compared.append((token, own, told))
    if len(compared) < LEAST_COMPARED:
        return
    for token, own, told in compared:
        if own != told:
            raise JobError(
                f"The teacher's server does not have the student's vocabulary: token {token} is {own!r} to the student and"
                f" {told!r} to the server. Name a model of the same family.",
                code=CODE,
            )


def _first_difference(one: Mapping[int, str], other: Mapping[int, str]) -> int | None:
    differing = (number for number in one.keys() | other.keys() if one.get(number) != other.get(number))
    return min(differing, default=None)


def _quoted(tokens: Mapping[int, str], number: int) -> str:
    return repr(tokens[number]) if number in tokens else "nothing"


def read_size(directory: Path) -> int | None:
    """How many logits the model of a directory has; ``None`` where that cannot be told."""
    return _size(directory / "config.json")


def _size(path: Path) -> int | None:
    try:
        config = read_object(path)
    except (OSError, ValueError):
        return None
    nested = config.get("text_config")
    size = config.get("vocab_size", nested.get("vocab_size") if isinstance(nested, dict) else None)
    return size if isinstance(size, int) else None


def _tokens(path: Path) -> dict[int, str] | None:
    """The tokens of a ``tokenizer.json``: of its model, a mapping or (Unigram) a list, and those that were added."""
    try:
        content = json.loads(_content(path))
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            found = {int(number): str(token) for token, number in vocabulary.items()}
        else:
            found = {number: str(token) for number, (token, _) in enumerate(vocabulary)}
        return found | {int(each["id"]): str(each["content"]) for each in content.get("added_tokens") or ()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _content(path: Path) -> bytes:
    with open_regular(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES} bytes")
    return content


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size and _content(one) == _content(other)
    except (OSError, ValueError):
        return False
