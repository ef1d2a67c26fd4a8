"""One line of the input: a request with its ``custom_id``, or what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

Json = Any

KEYS: Final = ("custom_id", "method", "url", "body")
LONGEST_ID: Final = 512  # characters of a custom_id
QUOTED: Final = 80  # characters of a value that a message quotes
MOST_LEVELS: Final = 80  # of arrays and objects in one another, as for a request that is sent by itself


class BadLineError(Exception):
    """A line that is no request of this batch. ``param`` is the key that is wrong."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Line:
    """One request: what it is called and what is asked."""

    custom_id: str
    body: dict[str, Json]


def parse(raw: bytes, *, endpoint: str, model: str) -> Line:
    """The request of a line. Raises ``BadLineError``."""
    document = _object(raw)
    custom_id = _custom_id(document)
    if document["method"] != "POST":
        raise BadLineError(
            "invalid_method", f"method is {_quoted(document['method'])}; it must be POST", "method"
        )
    if document["url"] != endpoint:
        raise BadLineError(
            "invalid_url", f"url is {_quoted(document['url'])}; this batch asks {endpoint}", "url"
        )
    body = document["body"]
    if not isinstance(body, dict):
        raise BadLineError("invalid_body", "body is no JSON object", "body")
    if body.get("model") != model:
        found = "missing" if "model" not in body else _quoted(body["model"])
        raise BadLineError(
            "mismatched_model",
            f"body.model is {found}; all requests of this batch ask {model!r}",
            "body.model",
        )
    return Line(custom_id, body)


def body_of(raw: bytes) -> dict[str, Json]:
    """What is asked by a line that :func:`parse` took."""
    body: dict[str, Json] = json.loads(raw)["body"]
    return body


def _object(raw: bytes) -> dict[str, Json]:
    try:
        document = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadLineError("invalid_json_line", f"it is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadLineError("invalid_json_line", "it is no JSON object")
    if raw.count(b"[") + raw.count(b"{") > MOST_LEVELS and _is_deeper(document, MOST_LEVELS):
        raise BadLineError("invalid_json_line", f"it is nested deeper than {MOST_LEVELS} levels")
    missing = [key for key in KEYS if key not in document]
    if missing:
        raise BadLineError("missing_required_parameter", f"{missing[0]} is missing", missing[0])
    unknown = [key for key in document if key not in KEYS]
    if unknown:
        raise BadLineError(
            "unknown_parameter",
            f"{_quoted(unknown[0])} is no key of a request; leave it out",
            unknown[0][:QUOTED],
        )
    return document


def _is_deeper(value: Json, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return False
    return True


def _inner(value: Json) -> Iterable[Json]:
    found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (each for each in found if isinstance(each, dict | list))


def _custom_id(document: dict[str, Json]) -> str:
    custom_id = document["custom_id"]
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_ID:
        raise BadLineError(
            "invalid_custom_id", f"custom_id must be a text of 1 to {LONGEST_ID} characters", "custom_id"
        )
    try:
        custom_id.encode()
    except UnicodeEncodeError:
        raise BadLineError(
            "invalid_custom_id", "custom_id holds half of a surrogate pair", "custom_id"
        ) from None
    return custom_id


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _quoted(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 1]}…"
