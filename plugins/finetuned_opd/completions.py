"""The OpenAI-compatible completions API, as far as it scores a prompt: what is asked, and what the answer says. Pure.

vLLM's ``prompt_logprobs`` has an object for each token of the prompt, ``null`` for the first: token ids as keys, of the
token itself and of the ``k`` likeliest, and ``{"logprob", "rank", "decoded_token"}`` as values. The classic form is
``echo`` with ``logprobs``; it is read where the server writes tokens as ``token_id:N``, as vLLM and SGLang can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from finetuned_opd.scores import Row, Scores, Wanted

Json = Any

#: a log-probability is at most 0; engines round
_MOST: Final = 1e-3
#: what vLLM writes for -inf, since JSON has none: the token was cut off, so these are not the model's probabilities
_CUT_OFF: Final = -9000.0
_ID_PREFIX: Final = "token_id:"


class BadAnswerError(ValueError):
    """The answer has no scores that could be used; says what it has instead."""


@dataclass(frozen=True, slots=True)
class Position:
    """What the teacher says of one token: its log-probability, and those of its likeliest tokens by their ids."""

    log_prob: float
    others: Mapping[int, float]


def request(model: str, ids: Sequence[int], top_k: int, *, echo: bool) -> dict[str, Json]:
    """The body that asks for the scores of a prompt, at temperature 1. One token is generated: no server gives none."""
    body: dict[str, Json] = {
        "model": model,
        "prompt": list(ids),
        "max_tokens": 1,
        "temperature": 1.0,
        "return_tokens_as_token_ids": True,
    }
    if echo:
        return {**body, "echo": True, "logprobs": top_k}
    return {**body, "prompt_logprobs": top_k}


def scores(answer: Json, row: Row, wanted: Wanted, *, vocab_size: int | None = None) -> Scores:
    """What the answer says of the row's completion, by tokens below ``vocab_size``. Raises :class:`BadAnswerError`."""
    scored = wanted.of(row)
    ids = (*row.prompt, *row.completion[:scored])
    positions = _positions(answer, ids)[len(row.prompt) :]
    log_probs = torch.tensor([each.log_prob for each in positions])
    if not wanted.top_k:
        return Scores(log_probs)
    top = [_likeliest(each, wanted.top_k) for each in positions]
    strange = {token for each in top for token, _ in each if vocab_size is not None and token >= vocab_size}
    if strange:
        raise BadAnswerError(
            f"the token {min(strange)}, which the student's vocabulary of {vocab_size} lacks"
        )
    return Scores(
        log_probs,
        top_ids=torch.tensor([[token for token, _ in each] for each in top], dtype=torch.int64),
        top_log_probs=torch.tensor([[value for _, value in each] for each in top]),
    )


def decoded(answer: Json, ids: Sequence[int]) -> list[str | None]:
    """The text of each of the prompt's tokens, where the server tells it. Raises :class:`BadAnswerError`."""
    entries = _choice(answer).get("prompt_logprobs")
    if not isinstance(entries, list) or len(entries) != len(ids):
        return [None] * len(ids)
    texts = [
        (entry.get(str(token)) or {}).get("decoded_token") if isinstance(entry, dict) else None
        for entry, token in zip(entries, ids, strict=True)
    ]
    return [text if isinstance(text, str) else None for text in texts]


def _choice(answer: Json) -> Mapping[str, Json]:
    try:
        choice = answer["choices"][0]
    except (TypeError, KeyError, IndexError):
        choice = None
    if not isinstance(choice, dict):
        raise BadAnswerError("an answer without choices")
    return choice


def _positions(answer: Json, ids: Sequence[int]) -> list[Position]:
    """One for each id; the first, of which nothing can be said, is a placeholder."""
    choice = _choice(answer)
    if isinstance(choice.get("prompt_logprobs"), list):
        entries = [_entry(each) for each in choice["prompt_logprobs"]]
    elif isinstance(choice.get("logprobs"), dict):
        entries = _echoed(choice["logprobs"])[: len(ids)]  # after the prompt comes what was generated
    else:
        raise BadAnswerError(
            "an answer without prompt_logprobs: the server must be one that scores prompts, as vLLM does"
        )
    if len(entries) != len(ids):
        raise BadAnswerError(f"scores of {len(entries)} tokens for a prompt of {len(ids)}")
    placeholder = Position(0.0, {})
    return [placeholder, *(_position(at, entries[at], ids[at]) for at in range(1, len(ids)))]


def _position(at: int, entry: Mapping[int, Json], token: int) -> Position:
    if token not in entry:
        raise BadAnswerError(
            f"no score of token {token} at position {at}, but of {', '.join(map(str, list(entry)[:3])) or 'none'}"
        )
    return Position(_number(entry[token], at), {each: _number(value, at) for each, value in entry.items()})


def _number(value: Json, at: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadAnswerError(f"{value!r} as a log-probability at position {at}")
    if not math.isfinite(value) or value > _MOST:
        raise BadAnswerError(f"the log-probability {value} at position {at}")
    if value < _CUT_OFF:
        raise BadAnswerError(
            f"the log-probability -inf at position {at}: the server cuts off unlikely tokens (top_p, top_k or"
            " processed log-probs)"
        )
    return min(float(value), 0.0)


def _entry(each: Json) -> dict[int, Json]:
    if each is None:
        return {}
    try:
        return {int(token): value["logprob"] for token, value in each.items()}
    except (AttributeError, TypeError, KeyError, ValueError):
        raise BadAnswerError(f"prompt_logprobs with {str(each)[:80]}") from None


def _echoed(logprobs: Mapping[str, Json]) -> list[dict[int, Json]]:
    try:
        rows = zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)
        entries = [{_token_id(token): value} for token, value in rows]
        for entry, top in zip(entries, logprobs.get("top_logprobs") or [], strict=False):
            entry |= {_token_id(token): value for token, value in (top or {}).items()}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise BadAnswerError(
            "logprobs that do not name tokens by their ids: the server must honour return_tokens_as_token_ids"
        ) from None
    return entries


def _token_id(token: str) -> int:
    if not token.startswith(_ID_PREFIX):
        raise ValueError(token)
    return int(token.removeprefix(_ID_PREFIX))


def _likeliest(position: Position, top_k: int) -> list[tuple[int, float]]:
    found = sorted(position.others.items(), key=lambda pair: (-pair[1], pair[0]))[:top_k]
    if len(found) < top_k:
        raise BadAnswerError(f"{len(found)} likeliest tokens where {top_k} were asked for")
    return found
