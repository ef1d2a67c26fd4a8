"""Who may ask: bearer tokens; secrets by name; and requests that are answered once however often they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from finetuned.domain.facts.base import Fact


@dataclass(frozen=True, kw_only=True)
class TokenCreated(Fact):
    """A bearer token was made. Only its SHA-256 is kept."""

    type: ClassVar[str] = "token.created"
    id: str
    scope: str
    sha256: str
    name: str | None = None
    expires_at: int | None = None  #: microseconds since the epoch, UTC; none for never


@dataclass(frozen=True, kw_only=True)
class TokenUsed(Fact):
    """The token opened the door. Recorded at most once an hour for each token."""

    type: ClassVar[str] = "token.used"
    id: str


@dataclass(frozen=True, kw_only=True)
class TokenRevoked(Fact):
    """The token opens nothing any more."""

    type: ClassVar[str] = "token.revoked"
    id: str


@dataclass(frozen=True, kw_only=True)
class SecretSet(Fact):
    """A secret was stored, or replaced. Its value is in a file, never here."""

    type: ClassVar[str] = "secret.set"
    name: str


@dataclass(frozen=True, kw_only=True)
class SecretDeleted(Fact):
    """A secret was removed."""

    type: ClassVar[str] = "secret.deleted"
    name: str


@dataclass(frozen=True, kw_only=True)
class RequestAccepted(Fact):
    """A request with an ``Idempotency-Key`` was carried out. Its repetition is answered with the same subject."""

    type: ClassVar[str] = "request.accepted"
    id: str  #: hash of who asked and of the key
    fingerprint: str  #: hash of what was asked
    subject: str  #: the stream that came of it, for instance job/job-x7k2m9qd4t
