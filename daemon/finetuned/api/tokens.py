"""Bearer tokens for the TCP door."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finetuned import views, wire
from finetuned.api.call import Call
from finetuned.api.lists import page_of
from finetuned.api.parameters import PageQuery
from finetuned.domain.tokens import LONGEST_LIFE_S
from finetuned.json_numbers import Integer


class TokenRequest(BaseModel):
    """The body of ``POST /v1/tokens``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    scope: Literal["read", "operate", "admin"] = Field(description="what its bearer may do")
    name: str | None = Field(default=None, max_length=200, description="what it is for")
    expires_in: Integer | None = Field(
        default=None,
        ge=1,
        le=LONGEST_LIFE_S,
        description="seconds after which it opens nothing any more; without it, never",
    )


async def listed(call: Call, query: PageQuery) -> wire.Page[wire.Token]:
    """All tokens, revoked and expired ones too; never a secret."""
    found = [views.token(token) for token in await call.queries.tokens()]
    return page_of(found, lambda each: each["id"], after=query.after, limit=query.limit)


async def create(call: Call, body: TokenRequest) -> wire.NewToken:
    """Make a token. Its secret is in this answer and nowhere else."""
    token, secret = await call.commands.tokens.create(
        scope=body.scope,
        name=body.name,
        expires_in=body.expires_in,
        actor=call.caller.actor,
        once=call.once,
    )
    return {**views.token(token), "token": secret}


async def revoke(call: Call, *, token_id: str) -> wire.RevokedToken:
    """Close a token at once."""
    await call.commands.tokens.revoke(token_id, actor=call.caller.actor)
    return {"id": token_id, "object": "token", "revoked": True}
