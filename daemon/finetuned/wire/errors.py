"""The one shape of errors, OpenAI's."""

from __future__ import annotations

from typing_extensions import TypedDict


class Error(TypedDict):
    """A refusal: a stable ``code`` for programs, a sentence with the remedy, and the parameter it is about."""

    code: str
    message: str
    param: str | None
    type: str


class ErrorAnswer(TypedDict):
    """The body of every answer with a status of 400 or more."""

    error: Error
