"""Every refusal in one JSON shape, and never a traceback."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.typedefs import Handler

from finetuned.api import request_ids
from finetuned.api.browsers import HEADERS
from finetuned.api.doors import encode, json
from finetuned.domain.errors import (
    EngineFailedError,
    FinetunedError,
    InvalidRequestError,
    Rejected,
    StorageFullError,
    TooLargeError,
    TooManyFailuresError,
    UnavailableError,
)
from finetuned.looking import AbandonedError
from finetuned_events import InvalidEventError, LogError, LogFullError

log = logging.getLogger(__name__)

REFERENCE = "docs/reference/api.md lists the routes"
SHOULD_RETRY = "X-Should-Retry"  # OpenAI's clients try a 409 and every 5xx again unless it says "false"
RETRY_S = 1  # when to come again where a 503 knows no better


class HeadersTooLargeError(InvalidRequestError):
    """More in the request line or the headers than is read."""

    status = 431

    def __init__(self, message: str) -> None:
        super().__init__(message, code="headers_too_large")


def document(code: str, message: str, *, kind: str, param: str | None = None) -> dict[str, Any]:
    """The one shape of errors, OpenAI's."""
    return {"error": {"code": code, "message": message, "param": param, "type": kind}}


def response(error: FinetunedError) -> web.Response:
    """The answer to a request that was refused."""
    body = document(error.stable_code, error.message, kind=error.kind, param=error.param)
    answer = json(body, status=error.status)
    if error.status == 401:
        answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    answer.headers.update(_retry_after(error))
    if isinstance(error, EngineFailedError | Rejected | StorageFullError):
        answer.headers[SHOULD_RETRY] = "false"
    if error.status == 408 or isinstance(error, TooManyFailuresError):
        # What else the client has to say is not waited for.
        answer.force_close()
    return answer


def _retry_after(error: FinetunedError) -> dict[str, str]:
    """When to come again, in whole seconds: every 503 says so, and whatever else has ``retry_after_s``."""
    seconds: float | None = getattr(error, "retry_after_s", RETRY_S if error.status == 503 else None)
    return {} if seconds is None else {hdrs.RETRY_AFTER: str(math.ceil(seconds))}


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
        return of_router(request, error)
    except AbandonedError as error:
        raise ConnectionAbortedError from error
    except ConnectionError:
        raise  # the client went; there is nobody to answer
    except Exception as error:  # noqa: BLE001 - whatever it is, it is logged and answered
        return response(of_parser(error) or unforeseen(request, error))


def of_parser(error: BaseException | None) -> FinetunedError | None:
    """What to answer when a request's bytes make no sense; ``None`` if that is not what went wrong."""
    if isinstance(error, FinetunedError):
        return error
    if isinstance(error, LineTooLong) or (
        isinstance(error, HttpProcessingError) and error.message.startswith("Too many headers")
    ):
        return HeadersTooLargeError(
            "The request line or a header is longer than 8 KiB, or there are more than 128 headers; send less in them."
        )
    if isinstance(error, web.RequestPayloadError | HttpProcessingError):
        return InvalidRequestError(
            f"This is no HTTP request that can be read: {_reason(error)}. Send HTTP/1.1 as RFC 9112 says, or use a"
            " client that does.",
            code="bad_request",
        )
    return None


def _reason(error: Exception) -> str:
    """The parser's first sentence: after it come pieces of the request."""
    told = error.message if isinstance(error, HttpProcessingError) else str(error).partition("message:")[2]
    first = next((line for line in told.splitlines() if line.strip()), "the body is cut short or malformed")
    return "".join(each if each.isprintable() else "?" for each in first[:200]).strip(" .:")


def unforeseen(request: web.BaseRequest, error: BaseException | None) -> FinetunedError:
    """What to answer to a defect of ours; the log has its traceback."""
    reference = request_ids.of(request)
    log.error("%s %s failed (%s)", request.method, request.path, reference, exc_info=error)
    return FinetunedError(
        f"The daemon failed to do this; its log has the reason under {reference}. "
        "Please report it with that part of the log."
    )


def raw(error: FinetunedError) -> bytes:
    """The refusal as the bytes of a whole answer that closes the connection: where there is no request to answer."""
    body = encode(document(error.stable_code, error.message, kind=error.kind, param=error.param))
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: "application/json; charset=utf-8",
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.CONNECTION: "close",
    }
    headers |= _retry_after(error) | HEADERS
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{lines}\r\n".encode() + body


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


def of_router(request: web.BaseRequest, error: web.HTTPException) -> web.Response:
    """The answer to a request that no route takes, and to what aiohttp itself refuses."""
    if isinstance(error, web.HTTPExpectationFailed):
        message = (
            "The only expectation that is met is `Expect: 100-continue`; leave the header out, or send that."
        )
        return json(document("expectation_failed", message, kind="invalid_request_error"), status=417)
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
