"""Request bodies: JSON objects, checked against a model."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError

from finetuned.domain.errors import InvalidRequestError
from finetuned.submission import invalid

M = TypeVar("M", bound=BaseModel)


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body is declared to be something else than JSON."""

    status = 415


async def read_object(request: web.Request, *, optional: bool = False) -> dict[str, Any]:
    """The body as a JSON object; empty if it is ``optional`` and there is none. Raises ``InvalidRequestError``."""
    raw = await request.read()
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
    return body


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
