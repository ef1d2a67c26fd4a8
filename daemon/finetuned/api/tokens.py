"""Bearer tokens for the TCP door."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from finetuned import views, wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.domain.tokens import LONGEST_LIFE_S

EPOCH = datetime.fromtimestamp(0, UTC)


def _written(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be an RFC 3339 time, for instance 2030-01-31T12:00:00Z")  # noqa: TRY004 - pydantic's way
    return value


class TokenRequest(BaseModel):
    """The body of ``POST /v1/tokens``."""

    model_config = ConfigDict(extra="forbid")

    scope: Literal["read", "operate", "admin"] = Field(description="what its bearer may do")
    name: str | None = Field(default=None, max_length=200, description="what it is for")
    expires_in: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_LIFE_S,
        strict=True,
        description="seconds after which it opens nothing any more; without it and `expires_at`, never",
    )
    expires_at: Annotated[AwareDatetime, BeforeValidator(_written)] | None = Field(
        default=None, description="when it expires instead, an RFC 3339 time with its offset"
    )

    @model_validator(mode="after")
    def _one_expiry(self) -> Self:
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError("expires_in and expires_at exclude each other; give one of them")
        return self

    def expiry(self, now: int) -> int | None:
        """When it expires, in microseconds since the epoch, seen from ``now``."""
        if self.expires_in is not None:
            return now + self.expires_in * 1_000_000
        return None if self.expires_at is None else (self.expires_at - EPOCH) // timedelta(microseconds=1)


async def listed(call: Call) -> wire.Page[wire.Token]:
    """All tokens, revoked and expired ones too; never a secret."""
    return listing([views.token(token) for token in await call.queries.tokens()])


async def create(call: Call, body: TokenRequest) -> wire.NewToken:
    """Make a token. Its secret is in this answer and nowhere else."""
    token, secret = await call.commands.create_token(
        scope=body.scope,
        name=body.name,
        expires_at=body.expiry(call.queries.now()),
        actor=call.caller.actor,
        once=call.once,
    )
    return {**views.token(token), "token": secret}


async def revoke(call: Call, *, token_id: str) -> wire.RevokedToken:
    """Close a token at once."""
    await call.commands.revoke_token(token_id, actor=call.caller.actor)
    return {"id": token_id, "object": "token", "revoked": True}
