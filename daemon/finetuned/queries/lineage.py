"""Where models come from and what makes sense next: part of :mod:`finetuned.queries.door`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from finetuned.board import Board
from finetuned.domain import lineage, next_steps
from finetuned.domain.errors import NotFoundError
from finetuned.domain.job import Job
from finetuned.domain.lineage import Derived
from finetuned.domain.next_steps import Step
from finetuned.domain.registers import Model
from finetuned.domain.waits import Wait


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A model with the job that made it; ``None`` for what is not known (any more)."""

    name: str
    model: Model | None
    job: Job | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """A model, what it was made from (the nearest first), and what was made from it."""

    model: Ancestor
    bases: list[Ancestor]
    derived: list[Derived]


@dataclass(frozen=True, slots=True)
class LineageQueries:
    """Models joined with their jobs. ``job`` looks one up, ``waiting`` also why it waits; ``kinds`` are those declared."""

    board: Board
    job: Callable[[str], Awaitable[Job]]
    waiting: Callable[[str], Awaitable[tuple[Job, Wait | None]]]
    kinds: frozenset[str] = frozenset()

    async def of_model(self, name: str) -> Lineage:
        """Where a model comes from and what came of it. Raises ``NotFoundError``."""
        # Of this moment: jobs are looked up in between.
        models = dict(sorted((await self.board.world()).models.items()))
        model = models.get(name)
        if model is None:
            raise NotFoundError(f"There is no model {name!r}; `finetune models` lists them.", param="name")
        return Lineage(
            await self._ancestor(name, model),
            [await self._ancestor(each.name, each.model) for each in lineage.bases(model, models)],
            lineage.derived(model, models),
        )

    async def next_of_job(self, job_id: str) -> list[Step]:
        """What makes sense next for a job. Raises ``NotFoundError``."""
        return next_steps.next_steps(*await self.waiting(job_id), kinds=self.kinds)

    async def _ancestor(self, name: str, model: Model | None) -> Ancestor:
        if model is None or model.job is None:
            return Ancestor(name, model, None)
        try:
            return Ancestor(name, model, await self.job(model.job))
        except NotFoundError:
            return Ancestor(name, model, None)
