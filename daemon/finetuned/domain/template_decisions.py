"""Decisions about templates: given the world and an intent, the events that follow. Pure."""

from __future__ import annotations

from typing import Any

from finetuned.domain import facts
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.world import World
from finetuned_events import NewEvent

Json = Any


def save(
    world: World, name: str, request: dict[str, Json], description: str | None, *, new: bool, actor: str
) -> list[NewEvent]:
    """Keep a job request under a name. What is kept already changes nothing; ``new`` refuses a name that is taken."""
    kept = world.templates.get(name)
    if kept is not None and new:
        raise Rejected(
            "template_exists",
            f"There is a template {name!r} already; PUT /v1/templates/{name} saves its next version.",
            param="name",
        )
    if kept is not None and (kept.request, kept.description) == (request, description):
        return []
    version = (
        world.template_versions.get(name, 0) + 1
    )  # counts on over a deletion: NAME@1 means one thing for ever
    return [
        _event(
            facts.TemplateSaved(name=name, version=version, request=request, description=description), actor
        )
    ]


def delete(world: World, name: str, *, actor: str) -> list[NewEvent]:
    """Free a template's name. Raises ``NotFoundError``."""
    if name not in world.templates:
        raise unknown(world, name)
    return [_event(facts.TemplateDeleted(name=name), actor)]


def unknown(world: World, name: str) -> NotFoundError:
    """The refusal of a name that no template has."""
    listed = ", ".join(sorted(world.templates)[:10]) or "none yet"
    return NotFoundError(f"There is no template {name!r}; there is {listed}.", param="template")


def _event(fact: facts.TemplateSaved | facts.TemplateDeleted, actor: str) -> NewEvent:
    return NewEvent(
        stream=f"template/{fact.name}",
        type=fact.type,
        data=fact.to_data(),
        actor=actor,
        schema=facts.SCHEMAS[fact.type],
    )
