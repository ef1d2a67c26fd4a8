"""Messages between an engine and who asks it: one JSON object a line, over a Unix socket, either way.

::

    -> {"id": 7, "op": "answer", "endpoint": "/v1/chat/completions", "body": {…}, "adapter": {"name": …, "path": …},
        "priority": 0}                        on one line; who is older does not say or read a priority
    <- {"id": 7, "part": {…}}                 once for each chunk, or once
    <- {"id": 7, "end": true}                 or {"id": 7, "error": {"status": 400, "message": …, …}}
    -> {"id": 7, "op": "abort"}               nothing more comes of 7
    -> {"id": 8, "op": "score", "sequences": [[1, 2, 3], …], "adapter": null}
    -> {"id": 9, "op": "status"}

    <- {"id": 0, "leaving": true}             the engine was told to stop: it takes nothing more, and ends before long

Ids are the asker's, of one connection. A connection that closes aborts what was asked over it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from finetuned_sdk.engines.errors import EngineGoneError, RequestError

LONGEST: Final = 64 << 20  # bytes of a line

Json = Any


def encode(message: dict[str, Json]) -> bytes:
    """A message as its line. Raises ``RequestError`` for a request, or a part of an answer, that is too long."""
    line = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
    if len(line) > LONGEST and "part" in message:
        raise RequestError(
            f"The answer is {len(line)} bytes long and an engine gives {LONGEST}; ask for less of it at once: fewer"
            " completions, tokens or log-probabilities.",
            code="answer_too_large",
        )
    if len(line) > LONGEST:
        raise RequestError(
            f"The request is {len(line)} bytes long and an engine takes {LONGEST}; send less.",
            status=413,
            code="request_too_large",
        )
    return line


def decode(line: bytes) -> dict[str, Json]:
    """The message of a line. Raises ``EngineGoneError`` if it is none: the other side is not to be trusted any more."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EngineGoneError(f"what the engine sent is no message: {error}") from None
    if not isinstance(message, dict):
        raise EngineGoneError("what the engine sent is no message")
    return message


def error_data(error: RequestError) -> dict[str, Json]:
    """A refusal as JSON-ready data."""
    return {
        "status": error.status,
        "message": error.message,
        "type": error.type,
        "code": error.code,
        "param": error.param,
    }


def error_from(data: dict[str, Json]) -> RequestError:
    """The refusal behind such data."""
    return RequestError(
        data["message"], status=data["status"], type=data["type"], code=data["code"], param=data["param"]
    )
