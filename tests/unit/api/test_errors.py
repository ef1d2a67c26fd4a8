"""What is raised and what is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from finetuned.api import errors
from finetuned.api.connections import TooManyConnectionsError
from finetuned.domain.errors import (
    AuthenticationError,
    FinetunedError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    Rejected,
    StorageFullError,
    TooLargeError,
    TooManyUploadsError,
    UnavailableError,
)
from finetuned.looking import AbandonedError
from finetuned.secrets.store import SecretUnsafeError
from finetuned_events import InvalidEventError, LogError, LogFullError, LogWriteError


async def answer(raised: BaseException) -> tuple[web.Response, dict[str, Any]]:
    async def handler(_request: web.Request) -> web.StreamResponse:
        raise raised

    response = await errors.middleware(make_mocked_request("GET", "/v1/x"), handler)
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return response, json.loads(response.body)["error"]


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"),
    [
        (InvalidRequestError("m", param="p"), 400, "invalid_request", "invalid_request_error"),
        (InvalidRequestError("m", code="unknown_kind"), 400, "unknown_kind", "invalid_request_error"),
        (AuthenticationError("m"), 401, "invalid_token", "authentication_error"),
        (PermissionDeniedError("m"), 403, "permission_denied", "permission_error"),
        (NotFoundError("m"), 404, "not_found", "invalid_request_error"),
        (Rejected("job_ended", "m"), 409, "job_ended", "invalid_request_error"),
        (TooLargeError("m"), 413, "body_too_large", "invalid_request_error"),
        (UnavailableError("m"), 503, "unavailable", "server_error"),
        (StorageFullError("m"), 507, "disk_full", "server_error"),
    ],
)
async def test_a_refusal_is_answered_in_the_one_shape(
    error: FinetunedError, status: int, code: str, kind: str
) -> None:
    response, body = await answer(error)
    assert response.status == status
    assert body == {"code": code, "message": "m", "param": error.param, "type": kind}


@pytest.mark.parametrize(
    ("error", "status"), [(LogFullError(), 507), (LogWriteError(), 503), (LogError("x"), 503)]
)
async def test_the_logs_refusals_are_the_servers_fault(error: LogError, status: int) -> None:
    response, body = await answer(error)
    assert (response.status, body["type"]) == (status, "server_error")


async def test_what_no_event_can_hold_is_the_clients_fault() -> None:
    response, body = await answer(InvalidEventError("2 bytes, 1 is allowed: keep the content in a file."))
    assert (response.status, body["code"], body["type"]) == (400, "invalid_event", "invalid_request_error")
    assert "keep the content in a file" in body["message"]


async def test_what_the_framework_refuses_has_the_same_shape() -> None:
    response, body = await answer(web.HTTPBadRequest(reason="Odd"))
    assert (response.status, body["code"], body["message"][:3]) == (400, "bad_request", "Odd")


async def test_a_client_that_went_is_answered_nothing() -> None:
    with pytest.raises(ConnectionResetError):
        await answer(ConnectionResetError())


async def test_an_unforeseen_error_is_logged_under_the_reference_that_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    response, body = await answer(ZeroDivisionError("inner"))
    assert response.status == 500
    (record,) = caplog.records
    reference = record.getMessage().partition("(")[2].removesuffix(")")
    assert reference in body["message"]
    assert record.exc_info is not None
    assert "inner" not in body["message"]


def _kinds(error: type[FinetunedError] = FinetunedError) -> Iterator[type[FinetunedError]]:
    yield error
    for kind in error.__subclasses__():
        yield from _kinds(kind)


UNAVAILABLE = sorted({kind for kind in _kinds() if kind.status == 503}, key=lambda kind: kind.__name__)


def test_the_errors_that_are_503_are_known() -> None:
    assert {UnavailableError, TooManyUploadsError, TooManyConnectionsError, SecretUnsafeError} <= set(
        UNAVAILABLE
    )


@pytest.mark.parametrize("kind", UNAVAILABLE)
async def test_every_503_says_after_how_many_seconds_to_come_again(kind: type[FinetunedError]) -> None:
    response, _ = await answer(kind("m"))
    seconds = response.headers["Retry-After"]
    assert seconds.isdecimal()
    assert int(seconds) > 0
    assert f"\r\nRetry-After: {seconds}\r\n".encode() in errors.raw(kind("m"))


@pytest.mark.parametrize("error", [LogWriteError(), LogError("x")])
async def test_a_log_that_cannot_be_used_now_says_when_to_come_again(error: LogError) -> None:
    response, _ = await answer(error)
    assert response.headers["Retry-After"] == "1"


async def test_what_coming_again_does_not_help_says_nothing_of_it() -> None:
    for error in (InvalidRequestError("m"), Rejected("job_ended", "m"), StorageFullError("m"), ValueError()):
        response, _ = await answer(error)
        assert "Retry-After" not in response.headers


async def test_who_uploads_too_much_at_a_time_is_told_when_to_come_back() -> None:
    response, body = await answer(TooManyUploadsError("busy; later"))
    assert (response.status, body["code"]) == (503, "too_many_uploads")
    assert response.headers["Retry-After"] == "5"


async def test_an_answer_that_nobody_waits_for_any_more_is_no_failure() -> None:
    with pytest.raises(ConnectionError):
        await answer(AbandonedError())
