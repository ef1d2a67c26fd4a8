"""Old shapes of event data are brought up to date when they are read; the file is never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ("Upcaster", "Upcasters")

Upcaster = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A pure function from the data of one schema version to those of the next."""


class Upcasters:
    """Pure functions by (type, schema version they read); each leads to the next version."""

    def __init__(self, steps: Mapping[tuple[str, int], Upcaster] | None = None) -> None:
        self._steps: dict[tuple[str, int], Upcaster] = dict(steps or {})

    def __bool__(self) -> bool:
        return bool(self._steps)

    def register(self, type: str, schema: int) -> Callable[[Upcaster], Upcaster]:  # noqa: A002 - the event's field
        """Decorate the function that turns `type`'s data from version `schema` into `schema + 1`."""

        def add(step: Upcaster) -> Upcaster:
            if (type, schema) in self._steps:
                raise ValueError(f"{type} {schema} has an upcaster already: remove one of the two.")

            self._steps[type, schema] = step
            return step

        return add

    def upcast(self, type: str, schema: int, data: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:  # noqa: A002
        """Return the newest schema version that the steps lead to, and the data in that shape."""
        while (step := self._steps.get((type, schema))) is not None:
            data = step(data)
            schema += 1

        return schema, data
