"""Scoring of answers against what was expected. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

Scored = Literal["exact_match", "json_fields"]


def choose(expected: Sequence[str]) -> Scored:
    """``json_fields`` if every expected answer is a JSON object, else ``exact_match``."""
    return (
        "json_fields"
        if expected and all(parse_object(text) is not None for text in expected)
        else "exact_match"
    )


def score(expected: Sequence[str], answers: Sequence[str], metric: Scored) -> dict[str, float]:
    """Shares from 0 to 1, over all rows.

    ``exact_match``: answers that equal the expected text, white space around them aside; for ``json_fields``
    those that parse to the same JSON object, whatever their spacing and order of keys. ``field_accuracy``:
    expected fields (of all rows together) that the answer has with the same value and type. ``valid_json``:
    answers that are one JSON object and nothing else.
    """
    pairs = list(zip(expected, answers, strict=True))
    if not pairs:
        return {}
    if metric == "exact_match":
        return {"exact_match": sum(e.strip() == a.strip() for e, a in pairs) / len(pairs)}
    objects = [(parse_object(e) or {}, parse_object(a)) for e, a in pairs]
    fields = sum(len(wanted) for wanted, _ in objects)
    right = sum(fields_right(wanted, got or {}) for wanted, got in objects)
    return {
        "exact_match": sum(got is not None and _same(wanted, got) for wanted, got in objects) / len(pairs),
        "field_accuracy": right / fields if fields else 1.0,
        "valid_json": sum(got is not None for _, got in objects) / len(pairs),
    }


def is_right(expected: str, answer: str, metric: Scored) -> bool:
    """Whether one answer counts as an exact match."""
    return score([expected], [answer], metric)["exact_match"] == 1.0


def fields_right(wanted: dict[str, Any], got: dict[str, Any]) -> int:
    """How many of the wanted fields ``got`` has with the same value and type."""
    return sum(key in got and _same(value, got[key]) for key, value in wanted.items())


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is, or ``None``."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _same(one: Any, other: Any) -> bool:
    # Compared as JSON, since Python takes True for 1 and 2 for 2.0.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
