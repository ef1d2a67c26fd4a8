"""Names that stand for models: promoted, rolled back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from finetuned import wire
from finetuned.api.call import Call
from finetuned.api.lists import page_of
from finetuned.api.parameters import PageQuery
from finetuned.views import models as views_models


class AliasRequest(BaseModel):
    """The body of ``PUT /v1/aliases/{alias}``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    model: str = Field(
        min_length=1,
        max_length=1000,
        description="the model it is to stand for: registered, by any of its names, or what another alias stands for",
    )


async def listed(call: Call, query: PageQuery) -> wire.Page[wire.Alias]:
    """All aliases."""
    shown = [views_models.alias(each) for each in await call.queries.aliases()]
    return page_of(shown, lambda each: each["id"], after=query.after, limit=query.limit)


async def show(call: Call, *, alias: str) -> wire.Alias:
    """What an alias stands for."""
    return views_models.alias(await call.queries.alias(alias))


async def promote(call: Call, body: AliasRequest, *, alias: str) -> wire.Alias:
    """Have an alias stand for a model from now on."""
    done = await call.commands.aliases.promote(alias, body.model, actor=call.caller.actor)
    return views_models.alias(done)


async def roll_back(call: Call, *, alias: str) -> wire.Alias:
    """Have an alias stand for the model before."""
    done = await call.commands.aliases.roll_back(alias, actor=call.caller.actor, once=call.once)
    return views_models.alias(done)


async def delete(call: Call, *, alias: str) -> wire.Deleted:
    """Free an alias; its model stays."""
    await call.commands.aliases.delete(alias, actor=call.caller.actor)
    return {"id": alias, "object": "alias", "deleted": True}
