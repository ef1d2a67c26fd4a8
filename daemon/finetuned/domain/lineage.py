"""Lineage: which models a model was made from, and which were made from it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from finetuned.domain.registers import Model

MOST_BASES = 100
MOST_DERIVED = 1000


@dataclass(frozen=True, slots=True)
class Base:
    """A model that another was made from; ``model`` is ``None`` for one that is not registered."""

    name: str
    model: Model | None


@dataclass(frozen=True, slots=True)
class Derived:
    """A model and the name that it has for what it was made from."""

    model: Model
    base: str


def parents(model: Model) -> list[str]:
    """The names (or paths) that a model gives for what it was made from: its base, and the adapter it went on from."""
    adapter = model.lineage.get("adapter")
    named = [model.base, adapter if isinstance(adapter, str) else None]
    return [each for each in named if each]


def bases(model: Model, models: Mapping[str, Model]) -> list[Base]:
    """What a model was made from, the nearest first, each once."""
    found: dict[str, Base] = {}
    seen = {model.name}
    waiting = parents(model)
    while waiting and len(found) < MOST_BASES:
        name = waiting.pop(0)
        registered = _find(name, models)
        key = name if registered is None else registered.name
        if key in seen:
            continue
        seen.add(key)
        found[key] = Base(key, registered)
        if registered is not None:
            waiting += parents(registered)
    return list(found.values())


def derived(model: Model, models: Mapping[str, Model]) -> list[Derived]:
    """What was made from a model, directly first, each once."""
    children: dict[str, list[Derived]] = {}
    for each in models.values():
        for name in parents(each):
            registered = _find(name, models)
            if registered is not None:
                children.setdefault(registered.name, []).append(Derived(each, registered.name))
    return list(_below(model.name, children))[:MOST_DERIVED]


def _below(name: str, children: Mapping[str, list[Derived]]) -> Iterator[Derived]:
    seen = {name}
    waiting = [name]
    while waiting:
        for each in children.get(waiting.pop(0), []):
            if each.model.name not in seen:
                seen.add(each.model.name)
                waiting.append(each.model.name)
                yield each


def _find(name: str, models: Mapping[str, Model]) -> Model | None:
    """The registered model of that name, or at that path."""
    if name in models:
        return models[name]
    return next((each for each in models.values() if each.path == name), None) if "/" in name else None
