"""Secrets: set, named, removed, and never shown."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from finetuned import views_secrets, wire
from finetuned.api.call import Call
from finetuned.api.lists import listing


class SecretRequest(BaseModel):
    """The body of ``PUT /v1/secrets/{name}``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    value: str = Field(description="the secret; at least 8 characters and at most 8192 bytes")


async def listed(call: Call) -> wire.Page[wire.Secret]:
    """The names of all secrets."""
    names = await call.commands.secrets.names()
    return listing([views_secrets.secret(each) for each in names], key="name")


async def put(call: Call, body: SecretRequest, *, name: str) -> wire.Secret:
    """Store a secret, or replace it. Attempts that run keep the value that they started with."""
    return views_secrets.secret(await call.commands.secrets.put(name, body.value, actor=call.caller.actor))


async def delete(call: Call, *, name: str) -> wire.Deleted:
    """Remove a secret. Jobs that name it and have not started will fail to."""
    await call.commands.secrets.delete(name, actor=call.caller.actor)
    return {"id": name, "object": "secret", "deleted": True}
