"""The hash chain: each row's hash covers the row and the hash before it, so no row can be edited unseen."""

from __future__ import annotations

from hashlib import sha256

import orjson

__all__ = ("GENESIS", "link")

GENESIS = bytes(32)
"""The hash before the first event."""


def link(
    previous: bytes,
    seq: int,
    stream: str,
    version: int,
    type: str,  # noqa: A002 - the event's field
    schema: int,
    at: int,
    actor: str,
    cause: str | None,
    data: bytes,
) -> bytes:
    """Return SHA-256 over the previous hash, the row's fields as one JSON array, and its data as stored.

    A JSON array ends where it ends, so no two rows give the same bytes.
    """
    row = orjson.dumps((seq, stream, version, type, schema, at, actor, cause))
    return sha256(previous + row + data).digest()
