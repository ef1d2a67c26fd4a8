"""The way in for batches as OpenAI's clients ask for them: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import anyio.to_thread

from finetuned.commands.appending import Appending
from finetuned.domain.errors import InvalidRequestError, NotFoundError, PermissionDeniedError
from finetuned.domain.files import Known
from finetuned.domain.idempotency import Once
from finetuned.domain.job import Job
from finetuned.job_request import JobRequest
from finetuned.openai import batches
from finetuned.openai.batches import BatchRequest, in_its_words, job_request, model_of, require_purpose
from finetuned.queries.door import Queries

LONGEST_LINE: Final = 1 << 20  # bytes of a line that is looked into for the model
LOOKED_INTO: Final = 8 << 20  # bytes of all of them: they are parsed before anything of the batch is checked


class Submit(Protocol):
    """Accepts a job."""

    async def __call__(
        self, request: JobRequest, *, actor: str, may_name_paths: bool, once: Once | None
    ) -> Job: ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a batch's file may hold: requests, and bytes."""

    max_requests: int = 50_000
    max_bytes: int = 200_000_000


@dataclass(frozen=True, slots=True)
class BatchCommands:
    """What such a client asks for. Each method returns after its events are on disk."""

    appending: Appending
    queries: Queries
    submit: Submit
    limits: BatchLimits

    async def create(
        self, body: BatchRequest, *, actor: str, may_name_paths: bool = False, once: Once | None = None
    ) -> Job:
        """Accept a batch over a file. A refusal names the request's own parameters.

        Raises as ``Commands.submit`` does, and ``NotFoundError`` for a file or a model that there is not.
        """
        if done := await self.appending.earlier(once):
            return await self.queries.job(done.removeprefix("job/"))
        try:
            model = await self._model(body)
            request = job_request(
                body, model, max_requests=self.limits.max_requests, max_bytes=self.limits.max_bytes
            )
            return await self.submit(request, actor=actor, may_name_paths=may_name_paths, once=once)
        except (InvalidRequestError, NotFoundError, PermissionDeniedError) as error:
            raise in_its_words(error) from None

    async def _model(self, body: BatchRequest) -> str:
        world = await self.appending.board.world()
        file = Known(world.files, self.appending.now()).find(body.input_file_id)
        require_purpose(file)
        if file.bytes > self.limits.max_bytes:
            raise InvalidRequestError(
                f"input_file_id: the file has {file.bytes} bytes, more than the {self.limits.max_bytes} that a batch's"
                " file may have; split it.",
                param="input_file_id",
                code="invalid_input_file",
            )
        return await anyio.to_thread.run_sync(model_in, Path(file.path))


def model_in(path: Path) -> str:
    """The model that a batch's file names at its beginning. Raises ``InvalidRequestError``."""
    try:
        with path.open("rb") as file:
            return model_of(islice(_lines(file), batches.LOOKED_AT))
    except OSError as error:
        raise InvalidRequestError(
            f"input_file_id: the file's content cannot be read ({error.strerror}); upload it again.",
            param="input_file_id",
            code="file_unreadable",
        ) from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines. Raises ``InvalidRequestError`` at the first that is too long, or when they are too long together."""
    looked_into = 0
    while line := file.readline(LONGEST_LINE + 1):
        looked_into += len(line)
        if len(line) > LONGEST_LINE or looked_into > LOOKED_INTO:
            raise InvalidRequestError(
                f"input_file_id: the first request that names a model must come in the file's first {LOOKED_INTO >> 20} MiB,"
                f" behind lines of at most {LONGEST_LINE >> 20} MiB, and be none longer; put a short request first.",
                param="input_file_id",
                code="invalid_input_file",
            )
        yield line
