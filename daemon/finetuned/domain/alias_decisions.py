"""Decisions about aliases: given the world and an intent, the events that follow. Pure.

An alias such as ``support-bot@production`` stands for one model at a time. It has an ``@``, which no dataset, template or
``ft:`` name has before it is read, so that nobody takes one for another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from finetuned.domain import facts, model_names
from finetuned.domain.errors import InvalidRequestError, ModelNotFoundError, NotFoundError, Rejected
from finetuned.domain.registers import Alias, Model
from finetuned.domain.streams import event
from finetuned.domain.world import World
from finetuned.spelling import nearest
from finetuned_events import NewEvent

Events = list[NewEvent]

NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}@[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


def promote(world: World, alias: str, model: str, *, actor: str) -> Events:
    """Have an alias stand for a model, which any name may say. What it stands for already changes nothing.

    Raises ``InvalidRequestError`` for a name that no alias may have, and ``ModelNotFoundError``.
    """
    _check_name(alias)
    found = model_names.find(model, world.models, world.aliases)
    if found is None:
        raise unknown_model(world, model)
    if alias in world.models:
        raise Rejected(
            "alias_is_a_model", f"A model is registered as {alias!r}; choose another alias.", param="alias"
        )
    now = world.aliases.get(alias)
    if now is not None and now.model == found.name:
        return []
    previous = None if now is None else now.model
    return [_set(facts.AliasSet(alias=alias, model=found.name, previous=previous), actor)]


def roll_back(world: World, alias: str, *, actor: str) -> Events:
    """Have an alias stand for what it stood for before, of what is still registered.

    Raises ``NotFoundError``, or ``Rejected`` if there is nothing before.
    """
    now = world.aliases.get(alias)
    if now is None:
        raise unknown(world, alias)
    before = before_of(now, world.models)
    if before is None:
        raise Rejected(
            "no_earlier_model",
            f"{alias} stood for no other model that is still registered; `finetune models promote MODEL --as {alias}`"
            " names one.",
        )
    return [_set(facts.AliasSet(alias=alias, model=before, previous=now.model, is_rollback=True), actor)]


def delete(world: World, alias: str, *, actor: str) -> Events:
    """Free an alias; its model stays. Raises ``NotFoundError``."""
    if alias not in world.aliases:
        raise unknown(world, alias)
    return [event(f"alias/{alias}", facts.AliasDeleted(alias=alias), actor)]


def before_of(alias: Alias, models: Iterable[str] | dict[str, Model]) -> str | None:
    """The newest model that an alias stood for before, of those that are registered."""
    return next((each for each in reversed(alias.history) if each in models and each != alias.model), None)


def require_unnamed(world: World, model: str) -> None:
    """Reject the removal of a model that an alias names."""
    named = sorted(each.alias for each in world.aliases.values() if each.model == model)
    if named:
        raise Rejected(
            "model_aliased",
            f"{' and '.join(named)} stand{'s' if len(named) == 1 else ''} for the model {model!r}; first promote"
            f" another (`finetune models promote MODEL --as {named[0]}`), or `finetune models unalias {named[0]}`.",
        )


def unknown(world: World, alias: str) -> NotFoundError:
    """The refusal of an alias that there is not."""
    return NotFoundError(
        f"There is no alias {alias[:200]!r}.{nearest(alias, world.aliases)} `finetune models aliases` lists them.",
        param="alias",
    )


def unknown_model(world: World, model: str) -> ModelNotFoundError:
    """The refusal of a name that stands for no registered model."""
    known = model_names.known(world.models, world.aliases)
    return ModelNotFoundError(
        f"There is no model {model[:200]!r}.{nearest(model, known)} `finetune models` lists them.",
        param="model",
    )


def _check_name(alias: str) -> None:
    if not NAME.fullmatch(alias):
        raise InvalidRequestError(
            f"{alias[:200]!r} is no alias: write NAME@STAGE, such as support-bot@production, of letters, digits, dots,"
            " dashes and underscores.",
            param="alias",
            code="invalid_name",
        )


def _set(fact: facts.AliasSet, actor: str) -> NewEvent:
    return event(f"alias/{fact.alias}", fact, actor)
