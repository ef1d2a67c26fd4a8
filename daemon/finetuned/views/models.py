"""How models and aliases look to the outside. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetuned import views, wire
from finetuned.domain import model_names
from finetuned.domain.registers import Alias, Model


def models(registered: Sequence[Model], aliases: Sequence[Alias]) -> list[wire.Model]:
    """Every name that a model answers to: its own, then the ``ft:`` names of what jobs made, then aliases."""
    by_name = {each.name: each for each in registered}
    shown = [model(each, aliases) for each in registered]
    shown += [
        model(each, aliases, asked=name)
        for each in registered
        if (name := model_names.fine_tuned(each)) is not None
    ]
    shown += [
        model(by_name[each.model], aliases, asked=each.alias) for each in aliases if each.model in by_name
    ]
    return shown


def model(each: Model, aliases: Sequence[Alias], *, asked: str | None = None) -> wire.Model:
    """A model under the name that was ``asked`` for: OpenAI's shape, with what this daemon knows beside it."""
    name = asked or each.name
    return {
        "id": name,
        "object": "model",
        "created": each.created_at // 1_000_000,
        "owned_by": "finetuned",
        "stands_for": None if name == each.name else each.name,
        "fine_tuned_model": model_names.fine_tuned(each),
        "aliases": [alias.alias for alias in aliases if alias.model == each.name],
        "path": each.path,
        "kind": each.kind,
        "base": each.base,
        "job": each.job,
        "lineage": each.lineage,
    }


def alias(each: Alias) -> wire.Alias:
    """An alias, and what it stood for before."""
    return {
        "id": each.alias,
        "object": "alias",
        "model": each.model,
        "history": list(reversed(each.history)),
        "set_at": views.time(each.set_at),
        "set_by": each.set_by,
    }
