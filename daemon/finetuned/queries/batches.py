"""Jobs as batches: those of the kind batch, by their ids there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.domain.job import Job
from finetuned.openai import batch_ids
from finetuned.openai.batches import KIND

if TYPE_CHECKING:
    from finetuned.queries.door import Queries, Shown


@dataclass(frozen=True, slots=True)
class BatchQueries:
    """What can be looked at of batches."""

    queries: Queries

    async def shown(self, batch_id: str) -> Shown:
        """One batch with why it waits. Raises ``NotFoundError``."""
        job_id = batch_ids.job_of(batch_id)
        if job_id is not None:
            try:
                found = await self.queries.shown(job_id)
            except NotFoundError:
                pass
            else:
                if found.job.kind == KIND:
                    return found
        raise NotFoundError(
            f"There is no batch {batch_id[:80]!r}; `finetune batch` lists them.", param="batch_id"
        )

    async def listed(self, *, after: str | None, limit: int) -> tuple[list[Job], bool]:
        """A page of batches, newest first, and whether there are more. Raises ``InvalidRequestError``."""
        before = None if after is None else batch_ids.job_of(after)
        if after is not None and before is None:
            raise InvalidRequestError(
                f"after: there is no batch {after[:80]!r}; give the last id of the page before.",
                param="after",
            )
        return await self.queries.jobs(after=before, limit=limit, kind=KIND)
