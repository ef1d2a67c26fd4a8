"""Bearer tokens: how their secrets look, what they open, and when their use is worth an event. Pure.

A secret is ``ft_<id>_<256 random bits>``. It names its token, which is found without a search; what is compared
is its hash.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

from finetuned.domain.registers import Token

SCOPES = ("read", "operate", "admin")
LONGEST_LIFE_S = 10 * 366 * 24 * 3600  #: seconds; a token that is to live longer had better live for ever
USE_RECORDED_EVERY_US = 3600 * 1_000_000  #: microseconds between two ``token.used`` of one token

_PREFIX = "tok-"


def secret_of(token_id: str, random: str) -> str:
    """The secret of a new token. ``random`` must hold 256 bits that nobody can guess."""
    return f"ft_{token_id.removeprefix(_PREFIX)}_{random}"


def secret_hash(secret: str) -> str:
    """What is kept of a token: 256 random bits need no salt and no stretching."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def find(tokens: Mapping[str, Token], secret: str) -> Token | None:
    """The token, open or not, whose secret this is. As quick with a million tokens as with one."""
    mark, _, rest = secret.partition("_")
    token = tokens.get(_PREFIX + rest.partition("_")[0]) if mark == "ft" else None
    # The id is no secret. How long the comparison takes says nothing about where the rest differs.
    if token is None or not hmac.compare_digest(token.sha256, secret_hash(secret)):
        return None
    return token


def is_open(token: Token, now: int) -> bool:
    """Whether the token opens anything at ``now`` (microseconds since the epoch)."""
    return token.revoked_at is None and (token.expires_at is None or now < token.expires_at)


def why_shut(token: Token, now: int) -> str | None:
    """What to tell the bearer of a token that opens nothing; ``None`` for an open one."""
    if token.revoked_at is not None:
        return f"The token {token.id} was revoked at {_time(token.revoked_at)}"
    if not is_open(token, now) and token.expires_at is not None:
        return f"The token {token.id} expired at {_time(token.expires_at)}"
    return None


def use_is_worth_recording(token: Token, now: int) -> bool:
    """Whether the last use that is known is older than an hour."""
    return token.last_used_at is None or now - token.last_used_at >= USE_RECORDED_EVERY_US


def _time(at: int) -> str:
    return datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
