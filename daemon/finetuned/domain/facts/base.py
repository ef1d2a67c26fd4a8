"""What all facts have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

Json = Any


@dataclass(frozen=True, kw_only=True)
class Fact:
    """The base of all facts: knows its event type and how to become data and back."""

    type: ClassVar[str]

    def to_data(self) -> dict[str, Json]:
        """The fact as JSON-ready data."""
        return {name: getattr(self, name) for name in _field_names(type(self))}

    @classmethod
    def from_data(cls, data: Mapping[str, Json]) -> Self:
        """The fact behind stored data."""
        return cls(**data)


_FIELD_NAMES: dict[type[Fact], tuple[str, ...]] = {}


def _field_names(fact: type[Fact]) -> tuple[str, ...]:
    names = _FIELD_NAMES.get(fact)
    if names is None:
        names = _FIELD_NAMES[fact] = tuple(field.name for field in fields(fact))
    return names
