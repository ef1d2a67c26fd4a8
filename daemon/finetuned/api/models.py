"""The models that can be named."""

from __future__ import annotations

from finetuned import views, wire
from finetuned.api.call import Call
from finetuned.api.lists import page_of
from finetuned.api.parameters import At, PageQuery


class ModelsQuery(PageQuery):
    """Which models, and when."""

    at: At | None = None


async def listed(call: Call, query: ModelsQuery) -> wire.Page[wire.Model]:
    """All registered models."""
    if query.at is None:
        found = await call.queries.models()
    else:
        found = await call.queries.past.models(await call.queries.position(query.at))
    shown = [views.model(model) for model in found]
    return page_of(shown, lambda each: each["id"], after=query.after, limit=query.limit)


async def show(call: Call, *, name: str) -> wire.Model:
    """One model."""
    return views.model(await call.queries.model(name))


async def delete(call: Call, *, name: str) -> wire.Deleted:
    """Free a model's name; its files stay."""
    await call.commands.delete_model(name, actor=call.caller.actor)
    return {"id": name, "object": "model", "deleted": True}
