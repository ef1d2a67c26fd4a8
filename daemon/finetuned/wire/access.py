"""Tokens."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Token(TypedDict):
    """A token without its secret. Times are RFC 3339 or null."""

    id: str
    object: Literal["token"]
    scope: str
    name: str | None
    created_at: str | None
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class NewToken(Token):
    """A token just made: ``token`` is its secret, which is never shown again."""

    token: str


class RevokedToken(TypedDict):
    """A token that opens nothing any more."""

    id: str
    object: Literal["token"]
    revoked: bool
