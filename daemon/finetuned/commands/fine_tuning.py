"""The way in for fine-tuning jobs as OpenAI's clients ask for them: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from finetuned.commands.appending import Appending
from finetuned.domain.errors import InvalidRequestError, NotFoundError, PermissionDeniedError, Rejected
from finetuned.domain.idempotency import Once
from finetuned.domain.job import Job
from finetuned.job_request import JobRequest
from finetuned.openai.fine_tuning import job_request, require_purpose
from finetuned.openai.fine_tuning_places import in_its_words
from finetuned.openai.fine_tuning_request import FineTuningRequest
from finetuned.queries.door import Queries


class Submit(Protocol):
    """Accepts a job under an id."""

    async def __call__(
        self, request: JobRequest, *, actor: str, may_name_paths: bool, once: Once | None, job_id: str
    ) -> Job: ...


@dataclass(frozen=True, slots=True)
class FineTuningCommands:
    """What such a client asks for. Each method returns after its events are on disk."""

    appending: Appending
    queries: Queries
    submit: Submit
    new_id: Callable[[str], str]

    async def create(
        self,
        body: FineTuningRequest,
        *,
        actor: str,
        may_name_paths: bool = False,
        once: Once | None = None,
    ) -> Job:
        """Accept a fine-tuning job. A refusal names the request's own parameters.

        Raises as ``Commands.submit`` does, and ``NotFoundError`` for an ``ft:`` name that stands for nothing.
        """
        if done := await self.appending.earlier(once):
            return await self.queries.job(done.removeprefix("job/"))
        world = await self.appending.board.world()
        job_id = self.new_id("job-")
        require_purpose(body, world.files)
        request = job_request(body, job_id=job_id, models=world.models, aliases=world.aliases)
        try:
            return await self.submit(
                request, actor=actor, may_name_paths=may_name_paths, once=once, job_id=job_id
            )
        except (InvalidRequestError, NotFoundError, PermissionDeniedError, Rejected) as error:
            raise in_its_words(error, body.trains) from None
