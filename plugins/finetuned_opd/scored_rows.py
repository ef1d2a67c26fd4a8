"""Rows of a dataset that carry their teacher's scores, one JSON object a line. No torch.

``{"prompt_ids": [..], "completion_ids": [..], "teacher_log_probs": [..]}``, each score at temperature 1, and where they
are wanted ``"sampler_log_probs": [..]``, and ``"teacher_top_ids"`` with ``"teacher_top_log_probs"``, k a token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from finetuned_opd.scores import Row
from finetuned_sdk import RowProblem
from finetuned_sdk.errors import BadDatasetError
from finetuned_training.dataset import SourceRow, read_rows

REMEDY: Final = "Have the teacher score these rows again, with the tokenizer of the student."
KEPT_PROBLEMS: Final = 100
DIGITS: Final = 6  # of a log-probability behind the point; float32 has no more
_MOST: Final = 1e-3  # a log-probability is at most 0; engines round


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row and what its teacher said; ``top_ids`` and ``top_log_probs`` have k of each token, the likeliest first."""

    row: Row
    log_probs: tuple[float, ...]
    sampler_log_probs: tuple[float, ...] | None = None
    top_ids: tuple[tuple[int, ...], ...] | None = None
    top_log_probs: tuple[tuple[float, ...], ...] | None = None

    @property
    def top_k(self) -> int:
        """How many of the likeliest tokens it has; 0 without them."""
        return len(self.top_ids[0]) if self.top_ids is not None else 0


def read(dataset: str, split: str = "train", *, vocab_size: int | None = None) -> Iterator[ScoredRow]:
    """Every row, in order. Raises ``BadDatasetError`` that names the rows that are wrong, once all were read."""
    problems: list[RowProblem] = []
    total = 0
    top_k: int | None = None
    for source in read_rows(dataset, split):
        try:
            scored = _scored(source, vocab_size, top_k)
            top_k = scored.top_k
        except ValueError as error:
            total += 1
            if len(problems) < KEPT_PROBLEMS:
                problems.append(_problem(source, str(error)))
            continue
        if not total:
            yield scored
    if total:
        raise BadDatasetError(dataset, problems, remedy=REMEDY, total=total)


def parse(data: Mapping[str, Any], *, vocab_size: int | None = None) -> ScoredRow:
    """The row behind a JSON object. Raises ``ValueError`` that says what is wrong with it."""
    prompt, completion = (_ids(data, name, vocab_size) for name in ("prompt_ids", "completion_ids"))
    count = len(completion)
    sampler = data.get("sampler_log_probs")
    top_ids, top_log_probs = _top(data, count, vocab_size)
    return ScoredRow(
        Row(prompt, completion),
        _log_probs(data.get("teacher_log_probs"), "teacher_log_probs", count),
        None if sampler is None else _log_probs(sampler, "sampler_log_probs", count),
        top_ids,
        top_log_probs,
    )


def line(scored: ScoredRow) -> str:
    """The row as a line of a dataset, its end included."""
    data: dict[str, Any] = {
        "prompt_ids": scored.row.prompt,
        "completion_ids": scored.row.completion,
        "teacher_log_probs": _rounded(scored.log_probs),
    }
    if scored.sampler_log_probs is not None:
        data["sampler_log_probs"] = _rounded(scored.sampler_log_probs)
    if scored.top_ids is not None and scored.top_log_probs is not None:
        data["teacher_top_ids"] = scored.top_ids
        data["teacher_top_log_probs"] = [_rounded(each) for each in scored.top_log_probs]
    return json.dumps(data, separators=(",", ":")) + "\n"


def _scored(source: SourceRow | RowProblem, vocab_size: int | None, top_k: int | None) -> ScoredRow:
    if isinstance(source, RowProblem):
        raise ValueError(source.reason)  # noqa: TRY004 - the row is wrong, not its type
    scored = parse(source.data, vocab_size=vocab_size)
    if top_k is not None and scored.top_k != top_k:
        raise ValueError(f"it has {scored.top_k} likeliest tokens, the rows before it {top_k}")
    return scored


def _problem(source: SourceRow | RowProblem, reason: str) -> RowProblem:
    return source if isinstance(source, RowProblem) else source.problem(reason)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(each, DIGITS) for each in values]


def _ids(data: Mapping[str, Any], name: str, vocab_size: int | None) -> tuple[int, ...]:
    value = data.get(name)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} is missing, empty or no list")
    return _checked_ids(value, name, vocab_size)


def _checked_ids(value: list[Any], name: str, vocab_size: int | None) -> tuple[int, ...]:
    for at, token in enumerate(value):
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise ValueError(f"{name}[{at}] is {token!r}, which is no token id")
        if vocab_size is not None and token >= vocab_size:
            raise ValueError(f"{name}[{at}] is {token}, and the vocabulary has {vocab_size:,} tokens")
    return tuple(value)


def _log_probs(value: Any, name: str, count: int) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is missing or no list")  # noqa: TRY004 - the row is wrong, not its type
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries where there are {count} tokens")
    for at, each in enumerate(value):
        number = isinstance(each, (int, float)) and not isinstance(each, bool)
        if not number or not math.isfinite(each) or each > _MOST:
            raise ValueError(f"{name}[{at}] is {each!r}, which is no log-probability")
    return tuple(min(float(each), 0.0) for each in value)


def _top(
    data: Mapping[str, Any], count: int, vocab_size: int | None
) -> tuple[tuple[tuple[int, ...], ...] | None, tuple[tuple[float, ...], ...] | None]:
    ids, log_probs = (data.get(name) for name in ("teacher_top_ids", "teacher_top_log_probs"))
    if ids is None and log_probs is None:
        return None, None
    for name, value in (("teacher_top_ids", ids), ("teacher_top_log_probs", log_probs)):
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(isinstance(each, list) for each in value)
        ):
            raise ValueError(f"{name} is not a list of one list for each of {count} tokens")
    assert isinstance(ids, list)
    assert isinstance(log_probs, list)
    top_k = len(ids[0])
    if not top_k:
        raise ValueError("teacher_top_ids has no token")
    all_ids, all_log_probs = [], []
    for at, (tokens, values) in enumerate(zip(ids, log_probs, strict=True)):
        if len(tokens) != top_k:
            raise ValueError(f"teacher_top_ids[{at}] has {len(tokens)} tokens, the first {top_k}")
        all_ids.append(_checked_ids(tokens, f"teacher_top_ids[{at}]", vocab_size))
        all_log_probs.append(_log_probs(values, f"teacher_top_log_probs[{at}]", top_k))
        if len(set(tokens)) < top_k or sorted(all_log_probs[-1], reverse=True) != list(all_log_probs[-1]):
            raise ValueError(f"teacher_top_ids[{at}] has a token twice, or not the likeliest first")
    return tuple(all_ids), tuple(all_log_probs)
