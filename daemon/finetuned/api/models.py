"""The models that can be named."""

from __future__ import annotations

from pydantic import Field

from finetuned import wire
from finetuned.api.call import Call
from finetuned.api.lists import page_of
from finetuned.api.parameters import At, Limit, Query
from finetuned.views import models as views_models


class ModelsQuery(Query):
    """Which models, and when. Whoever names no ``limit`` gets all: OpenAI's clients ask for no second page."""

    after: str | None = Field(default=None, description="the next_after of the page before")
    limit: Limit | None = None
    at: At | None = None


async def listed(call: Call, query: ModelsQuery) -> wire.Page[wire.Model]:
    """All registered models by name, then the `ft:` names of those that jobs made, then aliases."""
    if query.at is None:
        found, aliases = await call.queries.models(), await call.queries.aliases()
    else:
        found, aliases = await call.queries.past.models(await call.queries.position(query.at))
    shown = views_models.models(found, aliases)
    return page_of(shown, lambda each: each["id"], after=query.after, limit=query.limit)


async def show(call: Call, *, name: str) -> wire.Model:
    """One model, by any name that stands for it."""
    model = await call.queries.model(name)
    return views_models.model(model, await call.queries.aliases(), asked=name)


async def delete(call: Call, *, name: str) -> wire.Deleted:
    """Free a model's name; its files stay. Refused for a model that an alias names."""
    await call.commands.delete_model(name, actor=call.caller.actor)
    return {"id": name, "object": "model", "deleted": True}
