"""A request that is sent twice is carried out once: the ``Idempotency-Key``.

The key is remembered in the same transaction as what the request caused, so there is no moment at which one of
them is on disk without the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from finetuned.domain import facts
from finetuned.domain.errors import FinetunedError
from finetuned.domain.registers import KEPT_REQUESTS_US, AcceptedRequest
from finetuned.domain.world import World
from finetuned_events import NewEvent


class IdempotencyKeyReusedError(FinetunedError):
    """The key came with another request within a day."""

    code: ClassVar[str] = "idempotency_key_reused"
    status: ClassVar[int] = 422
    exit_code: ClassVar[int] = 2
    kind: ClassVar[str] = "invalid_request_error"


@dataclass(slots=True)
class Once:
    """A request with a key. ``replayed`` is set when it turns out to have been carried out before."""

    id: str
    fingerprint: str
    replayed: bool = False

    def include(self, part: bytes) -> None:
        """Make ``part`` one of what is asked: of a body that is a stream it is known late."""
        self.fingerprint = hashlib.sha256(self.fingerprint.encode() + part).hexdigest()


def once(actor: str, key: str, *what: bytes) -> Once:
    """The identity of a request: who asks and by which key, and a fingerprint of ``what`` is asked."""
    fingerprint = hashlib.sha256()
    for part in what:
        fingerprint.update(len(part).to_bytes(8, "big") + part)
    return Once(hashlib.sha256(f"{actor}\0{key}".encode()).hexdigest(), fingerprint.hexdigest())


def earlier(world: World, request: Once, *, now: int) -> AcceptedRequest | None:
    """The same request's first time, if there was one within a day. ``now`` is in microseconds since the epoch.

    Raises ``IdempotencyKeyReusedError`` if the key came with another.
    """
    before = world.requests.get(request.id)
    if before is None or before.at < now - KEPT_REQUESTS_US:  # the register keeps it until the next key comes
        return None
    if before.fingerprint != request.fingerprint:
        raise IdempotencyKeyReusedError(
            "This Idempotency-Key came with another request before; use a new key for a new request.",
            param="Idempotency-Key",
        )
    return before


def accepted(request: Once, subject: str, *, actor: str) -> NewEvent:
    """The event that remembers the request."""
    fact = facts.RequestAccepted(id=request.id, fingerprint=request.fingerprint, subject=subject)
    return NewEvent(
        stream=f"request/{request.id}",
        type=fact.type,
        data=fact.to_data(),
        actor=actor,
        schema=facts.SCHEMAS[fact.type],
    )
