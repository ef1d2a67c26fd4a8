"""Secrets: set, named, removed, and never shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from finetuned import wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.api.parameters import spelled
from finetuned.secrets.store import LONGEST
from finetuned.views import secrets as views_secrets

SecretName = Annotated[str, spelled(r"^[a-z0-9][a-z0-9._-]{0,63}$", 64)]


class SecretRequest(BaseModel):
    """The body of ``PUT /v1/secrets/{name}``."""

    model_config = ConfigDict(extra="forbid", defer_build=True, hide_input_in_errors=True)

    value: Annotated[str, spelled(r"^\S.{6,}\S$", LONGEST)] = Field(
        description="the secret; at least 8 characters and at most 8192 bytes"
    )


async def listed(call: Call) -> wire.Page[wire.Secret]:
    """The names of all secrets."""
    names = await call.commands.secrets.names()
    return listing([views_secrets.secret(each) for each in names], key="name")


async def put(call: Call, body: SecretRequest, *, name: SecretName) -> wire.Secret:
    """Store a secret, or replace it. Attempts that run keep the value that they started with."""
    return views_secrets.secret(await call.commands.secrets.put(name, body.value, actor=call.caller.actor))


async def delete(call: Call, *, name: SecretName) -> wire.Deleted:
    """Remove a secret. Jobs that name it and have not started will fail to."""
    await call.commands.secrets.delete(name, actor=call.caller.actor)
    return {"id": name, "object": "secret", "deleted": True}
