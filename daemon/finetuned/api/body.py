"""Request bodies: JSON objects, checked against a model."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import anyio.to_thread
import orjson
from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError

from finetuned.api.doors import DOORS
from finetuned.domain.errors import InvalidRequestError, UploadStalledError
from finetuned.refusals import invalid

INLINE_BYTES = 64 << 10  # of a body that is looked through on the event loop; a larger one in a thread
MOST_LEVELS = 80  # of nesting; an event holds 100, and puts some around what was sent
ORJSON_LEVELS = 254  # that orjson writes
SLOWEST_BYTES_PER_S = 1024  # at which a body may come, beyond the time that each has

M = TypeVar("M", bound=BaseModel)


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body is declared to be something else than JSON."""

    status = 415


async def read_object(request: web.Request, *, optional: bool = False) -> dict[str, Any]:
    """The body as a JSON object; empty if it is ``optional`` and there is none. Raises ``InvalidRequestError``."""
    raw = await _read(request)
    if not raw.strip():
        if optional:
            return {}
        raise InvalidRequestError("The body is empty; send a JSON object.", code="invalid_json")
    _check_type(request)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}. Correct it there.",
            code="invalid_json",
        ) from None
    if not isinstance(body, dict):
        raise InvalidRequestError(
            f"The body must be a JSON object, not {_json_type(body)}.", code="invalid_json"
        )
    if len(raw) <= INLINE_BYTES:
        _check(raw, body)
    else:
        await anyio.to_thread.run_sync(_check, raw, body)
    return body


async def _read(request: web.Request) -> bytes:
    """The whole body. Raises ``UploadStalledError`` if it comes too slowly."""
    config = request.app[DOORS].config
    announced = config.max_body_bytes if request.content_length is None else request.content_length
    allowed_s = config.body_timeout_s + min(announced, config.max_body_bytes) / SLOWEST_BYTES_PER_S
    with anyio.move_on_after(allowed_s) as waiting:
        return await request.read()
    assert waiting.cancelled_caught
    raise UploadStalledError(
        f"The body did not come within {allowed_s:.0f} s, nothing was done; send it faster, or raise body_timeout_s"
        " in the configuration."
    )


def _check(raw: bytes, body: dict[str, Any]) -> None:
    """Refuse JSON that could not be kept and shown again, and such of which each parser understands something else."""
    wrapped: Any = body
    for _ in range(ORJSON_LEVELS - MOST_LEVELS):
        wrapped = [wrapped]
    try:
        orjson.dumps(wrapped)
    except TypeError:
        raise InvalidRequestError(
            f"The body is nested deeper than {MOST_LEVELS} levels; make it flatter, or send it as a string.",
            code="invalid_json",
        ) from None
    json.loads(raw, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidRequestError(
                f"The body has the key {name[:80]!r} twice in one object; leave one out.", code="invalid_json"
            )
        seen.add(name)


def parse(model: type[M], body: dict[str, Any]) -> M:
    """The body as ``model``. Raises ``InvalidRequestError`` that names the field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        quote = not model.model_config.get("hide_input_in_errors", False)
        raise invalid(error, model.model_fields, prefix="", quote=quote) from None


def _check_type(request: web.Request) -> None:
    declared = request.headers.get(hdrs.CONTENT_TYPE)
    if (
        declared is None
        or request.content_type == "application/json"
        or request.content_type.endswith("+json")
    ):
        return
    raise UnsupportedMediaTypeError(
        f"The body is declared as {request.content_type}; send JSON with `Content-Type: application/json`.",
        code="unsupported_media_type",
    )


def _json_type(value: object) -> str:
    match value:
        case list():
            return "an array"
        case str():
            return "a string"
        case bool():
            return "a boolean"
        case None:
            return "null"
    return "a number"
