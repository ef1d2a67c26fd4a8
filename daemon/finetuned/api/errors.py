"""Every refusal in one JSON shape, and never a traceback."""

from __future__ import annotations

import logging
import math
import secrets
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from finetuned.api.doors import json
from finetuned.domain.errors import (
    FinetunedError,
    InvalidRequestError,
    StorageFullError,
    TooLargeError,
    TooManyFailuresError,
    UnavailableError,
)
from finetuned_events import InvalidEventError, LogError, LogFullError

log = logging.getLogger(__name__)

REFERENCE = "docs/reference/api.md lists the routes"


def document(code: str, message: str, *, kind: str, param: str | None = None) -> dict[str, Any]:
    """The one shape of errors, OpenAI's."""
    return {"error": {"code": code, "message": message, "param": param, "type": kind}}


def response(error: FinetunedError) -> web.Response:
    """The answer to a request that was refused."""
    body = document(error.stable_code, error.message, kind=error.kind, param=error.param)
    answer = json(body, status=error.status)
    if error.status == 401:
        answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if isinstance(error, TooManyFailuresError):
        answer.headers[hdrs.RETRY_AFTER] = str(math.ceil(error.retry_after_s))
        answer.force_close()
    return answer


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into an answer."""
    try:
        return await handler(request)
    except FinetunedError as error:
        return response(error)
    except LogError as error:
        return response(_of_log(error))
    except web.HTTPRequestEntityTooLarge as error:
        return response(_too_large(request, error))
    except web.HTTPException as error:
        return _of_router(request, error)
    except ConnectionError:
        raise  # the client went; there is nobody to answer
    except Exception:
        reference = f"err-{secrets.token_hex(4)}"
        log.exception("%s %s failed (%s)", request.method, request.path, reference)
        message = (
            f"The daemon failed to do this; its log has the reason under {reference}. "
            "Please report it with that part of the log."
        )
        return json(document("internal_error", message, kind="server_error"), status=500)


def _of_log(error: LogError) -> FinetunedError:
    if isinstance(error, LogFullError):
        return StorageFullError(f"{error} Nothing was recorded.")
    if isinstance(error, InvalidEventError):  # above all: more than an event holds
        return InvalidRequestError(f"This cannot be recorded, nothing was: {error}", code=error.code)
    log.error("The event log refused: %s", error)
    return UnavailableError(f"The event log cannot do this now: {error}")


def _too_large(request: web.Request, error: web.HTTPRequestEntityTooLarge) -> TooLargeError:
    limit = request.client_max_size
    return TooLargeError(
        f"The body is larger than {limit} bytes; send less, or raise max_body_bytes in the configuration."
        f" ({error.text})"
    )


def _of_router(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.path} takes {allowed}, not {request.method}; {REFERENCE}."
        answer = json(document("method_not_allowed", message, kind="invalid_request_error"), status=405)
        answer.headers[hdrs.ALLOW] = allowed
        return answer
    if error.status == 404:
        message = f"There is no {request.path}; {REFERENCE}."
        return json(document("no_such_route", message, kind="invalid_request_error"), status=404)
    message = f"{error.reason}; {REFERENCE}."
    return json(document("bad_request", message, kind="invalid_request_error"), status=error.status)
