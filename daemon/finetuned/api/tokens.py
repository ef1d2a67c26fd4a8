"""Bearer tokens for the TCP door."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from finetuned import views
from finetuned.api.auth import Caller
from finetuned.api.body import parse, read_object
from finetuned.api.doors import DOORS, json
from finetuned.api.paging import Parameters, listing


class TokenRequest(BaseModel):
    """The body of ``POST /v1/tokens``."""

    model_config = ConfigDict(extra="forbid")

    scope: Literal["read", "operate", "admin"] = Field(description="what its bearer may do")
    name: str | None = Field(default=None, max_length=200, description="what it is for")


async def listed(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """All tokens, revoked ones too; never a secret."""
    Parameters(request)
    tokens = await request.app[DOORS].queries.tokens()
    return json(listing([views.token(token) for token in tokens]))


async def create(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Make a token. Its secret is in this answer and nowhere else."""
    Parameters(request)
    wanted = parse(TokenRequest, await read_object(request))
    commands = request.app[DOORS].commands
    token, secret = await commands.create_token(scope=wanted.scope, name=wanted.name, actor=caller.actor)
    return json(views.token(token) | {"token": secret}, status=201)


async def revoke(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Close a token at once."""
    Parameters(request)
    doors = request.app[DOORS]
    token_id = request.match_info["id"]
    await doors.commands.revoke_token(token_id, actor=caller.actor)
    return json({"id": token_id, "object": "token", "revoked": True})
