"""The job kinds that plugins declare."""

from __future__ import annotations

from finetuned import views, wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.domain.errors import NotFoundError
from finetuned.spelling import nearest


async def listed(call: Call) -> wire.Page[wire.Kind]:
    """All kinds, each with the JSON schema of its parameters."""
    return listing([views.kind(kind) for kind in await call.queries.kinds()], key="name")


async def show(call: Call, *, name: str) -> wire.Kind:
    """One kind."""
    kinds = {kind.name: kind for kind in await call.queries.kinds()}
    if name not in kinds:
        raise NotFoundError(
            f"There is no job kind {name!r}.{nearest(name, kinds)} `finetune kinds` lists them.", param="name"
        )
    return views.kind(kinds[name])
