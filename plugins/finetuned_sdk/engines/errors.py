"""What can go wrong between an engine and who asks it."""

from __future__ import annotations


class RequestError(Exception):
    """The engine refuses one request, as the OpenAI API would: the others go on.

    ``status`` is HTTP's; ``type``, ``code`` and ``param`` are those of OpenAI's error object.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",  # noqa: A002 - the wire's own word
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.code = code
        self.param = param


class EngineGoneError(Exception):
    """The engine ended, or closed the connection: what was asked of it has to be asked again."""
