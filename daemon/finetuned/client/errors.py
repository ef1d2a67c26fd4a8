"""From a failed answer to the error that it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from finetuned.domain import errors


class UnreachableError(errors.UnavailableError):
    """No daemon answers at the endpoint, or the connection broke before the answer came."""

    code = "daemon_unreachable"


class UnexpectedAnswerError(errors.FinetunedError):
    """What answered does not speak this API: another program, or a proxy in between."""

    code = "unexpected_answer"
    exit_code = 6


LATER: Final = frozenset({429, 503})  # refused before anything was done
_SECONDS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)

_BY_STATUS: dict[int, type[errors.FinetunedError]] = {
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.UploadStalledError,
    413: errors.TooLargeError,
    421: errors.PermissionDeniedError,
    429: errors.AuthenticationError,
    503: errors.UnavailableError,
    507: errors.StorageFullError,
}

_BY_CODE: dict[str, type[errors.FinetunedError]] = {
    each.code: each
    for each in (
        errors.ArchivedError,
        errors.EngineBusyError,
        errors.EngineFailedError,
        errors.FilesRemovedError,
        errors.TooManyOpenUploadsError,
    )
}


def error_from(status: int, body: object, *, retry_after: str | None = None) -> errors.FinetunedError:
    """The error behind an answer with ``status`` >= 400; the server's code and sentence are kept.

    ``retry_after`` is the header of that name: whole seconds are kept, too, for :func:`wait_s`.
    """
    error = _from_body(status, body)
    if status in LATER and retry_after is not None and _SECONDS.fullmatch(retry_after):
        vars(error)["retry_after_s"] = int(retry_after)
    return error


def wait_s(error: errors.FinetunedError) -> int | None:
    """After how many seconds the server would have the same request again; ``None`` if it did not say."""
    found: int | None = vars(error).get("retry_after_s")
    return found


def _from_body(status: int, body: object) -> errors.FinetunedError:
    told = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(told, Mapping) or not isinstance(told.get("message"), str):
        foreign = UnexpectedAnswerError(
            f"The answer was HTTP {status}, and not one of finetuned's. Is FINETUNED_URL or FINETUNED_SOCKET right?"
        )
        vars(foreign)["status"] = status
        return foreign
    return _from_told(status, told)


def _from_told(status: int, told: Mapping[str, Any]) -> errors.FinetunedError:
    message, param = str(told["message"]), told.get("param")
    code = str(told.get("code") or "")
    if status == 409:
        return errors.Rejected(code or errors.Rejected.code, message, param=param)
    if status in _BY_STATUS or code in _BY_CODE:
        error = (_BY_CODE.get(code) or _BY_STATUS[status])(message, param=param)
    elif status < 500:
        return errors.InvalidRequestError(message, param=param, code=code or errors.InvalidRequestError.code)
    else:
        error = errors.FinetunedError(message, param=param)
    if code and code != error.code:
        vars(error)["code"] = code  # the server's word is more exact than the class's
    return error
