"""The daemon's errors: one root, a stable code each, and a sentence that says what to do."""

from __future__ import annotations

from typing import ClassVar


class FinetunedError(Exception):
    """The root of everything that is told to a user. ``status`` is the HTTP status, ``exit_code`` the CLI's."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    @property
    def stable_code(self) -> str:
        """The code that programs may rely on."""
        return self.code


class Rejected(FinetunedError):  # noqa: N818 - a verdict of the domain, named for what happened
    """A command that the present state does not allow. Nothing was recorded."""

    code = "rejected"
    status = 409
    exit_code = 4
    kind = "invalid_request_error"

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self._code = code

    @property
    def stable_code(self) -> str:
        """The verdict's own code."""
        return self._code


class InvalidRequestError(FinetunedError):
    """The request cannot be understood or names something that cannot be."""

    code = "invalid_request"
    status = 400
    exit_code = 2
    kind = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message, param=param)
        self._code = code

    @property
    def stable_code(self) -> str:
        """The refusal's own code."""
        return self._code


class NotFoundError(FinetunedError):
    """What is named does not exist (any more)."""

    code = "not_found"
    status = 404
    exit_code = 3
    kind = "invalid_request_error"


class AuthenticationError(FinetunedError):
    """Who asks is unknown."""

    code = "invalid_token"
    status = 401
    exit_code = 5
    kind = "authentication_error"


class TokenExpiredError(AuthenticationError):
    """Who asks has a token that was good until its time was over."""

    code = "token_expired"


class TooManyFailuresError(AuthenticationError):
    """Too many wrong secrets came from one address; after ``retry_after_s`` seconds another may be tried."""

    code = "too_many_failures"
    status = 429

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PermissionDeniedError(FinetunedError):
    """Who asks is known, and may not."""

    code = "permission_denied"
    status = 403
    exit_code = 5
    kind = "permission_error"


class ArchivedError(FinetunedError):
    """What is asked for was in events that are in an archive by now."""

    code = "archived"
    status = 410
    exit_code = 3
    kind = "invalid_request_error"


class FilesRemovedError(FinetunedError):
    """What is asked for was among the files of a job that were removed; its events are there."""

    code = "files_removed"
    status = 410
    exit_code = 3
    kind = "invalid_request_error"


class TooLargeError(FinetunedError):
    """The body is larger than this daemon takes."""

    code = "body_too_large"
    status = 413
    exit_code = 2
    kind = "invalid_request_error"


class UploadStalledError(FinetunedError):
    """The body stopped coming, and nothing of it was kept."""

    code = "upload_stalled"
    status = 408
    exit_code = 6
    kind = "invalid_request_error"


class StorageFullError(FinetunedError):
    """There is too little free disk to take on more work."""

    code = "disk_full"
    status = 507
    exit_code = 6


class UnavailableError(FinetunedError):
    """The daemon cannot answer now; asking again later may help."""

    code = "unavailable"
    status = 503
    exit_code = 6


class TooManyUploadsError(UnavailableError):
    """As many files are on their way in as are taken at a time; after ``retry_after_s`` seconds one may be tried again."""

    code = "too_many_uploads"
    retry_after_s = 5


class TooManyOpenUploadsError(UnavailableError):
    """One caller has as many uploads in parts that have not ended as one may have."""

    code = "too_many_open_uploads"
    status = 429
    kind = "rate_limit_error"


class ModelNotFoundError(NotFoundError):
    """No model is of that name that could answer."""

    code = "model_not_found"


class EngineNotReadyError(UnavailableError):
    """The engine of a model did not come in time; it may be there when it is asked again."""

    code = "engine_not_ready"
    retry_after_s = 5


class EngineEndedError(UnavailableError):
    """The engine ended before it had answered; another comes for who asks again."""

    code = "engine_ended"
    retry_after_s = 1


class EngineBusyError(UnavailableError):
    """As many requests ask an engine as may; this one was not taken."""

    code = "engine_busy"
    status = 429
    kind = "rate_limit_error"
    retry_after_s = 2


class EngineFailedError(UnavailableError):
    """There is no engine for the model, and asking again would not help before its cause is gone."""

    code = "engine_failed"
    status = 502


class ConfigError(FinetunedError):
    """The configuration cannot be used."""

    code = "config_error"
    exit_code = 78  # EX_CONFIG: systemd shows it by name


class StartError(FinetunedError):
    """The daemon cannot start here: port in use, another daemon on the same state, a newer log."""

    code = "cannot_start"
    exit_code = 69  # EX_UNAVAILABLE
