"""Signatures of Standard Webhooks: HMAC-SHA256 over id, time and body. Pure.

A receiver checks ``webhook-signature`` with the secret that it was given once; while a secret is changed a message
has the signatures of both.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"
KEY_BYTES: Final = 32  # of 24 to 64 that the specification allows
SHORTEST_BYTES: Final = 24


def new_secret() -> str:
    """A secret: ``whsec_`` and a random key in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """The key behind a secret. Raises ``ValueError`` for what is none."""
    key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    if len(key) < SHORTEST_BYTES:
        raise ValueError(f"a key has {SHORTEST_BYTES} bytes at least")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature. ``timestamp`` is Unix time in seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()


def headers(keys: Iterable[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers by which a receiver knows a message, its time and its sender."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(key, message_id, timestamp, body) for key in keys),
    }
