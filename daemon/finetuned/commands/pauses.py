"""The way in for pausing, resuming and saving: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

from dataclasses import dataclass

import anyio.to_thread

from finetuned.attempt_log import newest_checkpoint
from finetuned.commands.appending import Appending
from finetuned.domain import pauses
from finetuned.domain.errors import Rejected
from finetuned.domain.idempotency import Once
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.queries.door import Queries
from finetuned.results import checkpoints
from finetuned.results.checkpoints import LATEST, Found
from finetuned.secrets.scan import refuse_secrets


@dataclass(frozen=True, slots=True)
class PauseCommands:
    """Pause, resume, save. Each method returns after its events are on disk, and asking twice changes nothing."""

    appending: Appending
    queries: Queries

    async def pause(
        self,
        job_id: str,
        *,
        actor: str,
        reason: str | None = None,
        wait_s: float | None = None,
        once: Once | None = None,
    ) -> Job:
        """Ask a job to save a checkpoint and leave its devices; ``wait_s`` is how long the checkpoint is waited for.

        Raises ``NotFoundError``, or ``Rejected`` for a job that cannot be paused.
        """
        refuse_secrets(reason, where="reason")
        await self.appending.execute(
            lambda world: pauses.pause(world, job_id, actor=actor, reason=reason, wait_s=wait_s),
            subject=f"job/{job_id}",
            actor=actor,
            once=once,
            necessary=True,
        )
        return await self.queries.job(job_id)

    async def resume(
        self, job_id: str, *, actor: str, from_checkpoint: str | None = None, once: Once | None = None
    ) -> Job:
        """Let a paused job go on from its newest whole checkpoint, or from the one that is named.

        ``from_checkpoint`` is a step, ``latest`` or a checkpoint's id. Checkpoints are read through first. Raises
        ``NotFoundError``, or ``Rejected`` for a job that is not paused or whose checkpoint is gone.
        """
        if await self.appending.earlier(once):
            return await self.queries.job(job_id)
        job = await self.queries.job(job_id)
        named = from_checkpoint not in {None, LATEST}
        if named and job.state is not JobState.PAUSED:
            raise pauses.not_paused(job)
        found: Found | None = None
        if job.state is JobState.PAUSED:  # one that is still pausing is to find its own
            found = await anyio.to_thread.run_sync(self._found, job, from_checkpoint)
        await self.appending.execute(
            lambda world: pauses.resume(
                world,
                job_id,
                actor=actor,
                checkpoint=None if found is None else found.path,
                repeated_steps=None if found is None else _repeated(job, found.step),
                rewinds=named,
                attempts=None if found is None else len(job.attempts),
            ),
            subject=f"job/{job_id}",
            actor=actor,
            once=once,
        )
        return await self.queries.job(job_id)

    async def checkpoint(self, job_id: str, *, actor: str, once: Once | None = None) -> Job:
        """Ask a running job for a checkpoint at its next step. Raises ``NotFoundError`` or ``Rejected``."""
        await self.appending.execute(
            lambda world: pauses.request_checkpoint(world, job_id, actor=actor),
            subject=f"job/{job_id}",
            actor=actor,
            once=once,
        )
        return await self.queries.job(job_id)

    def _found(self, job: Job, wanted: str | None) -> Found | None:
        """What the job goes on from; ``None`` for one that begins anew. Blocks."""
        if wanted is not None and wanted != LATEST:
            return checkpoints.find(job, wanted)
        newest = newest_checkpoint(self.queries.jobs_dir, job)
        if newest is not None:
            return Found(str(newest[0]), newest[1])
        if wanted is not None:
            return checkpoints.find(job, wanted)  # which says why there is none
        if job.resume_from is not None:
            raise Rejected(
                "checkpoint_missing",
                f"The checkpoint that job {job.id} was to go on from ({job.resume_from}) is gone or damaged, and it has"
                f" no other; put it back, or `finetune cancel {job.id}` and `finetune retry {job.id}` from the beginning.",
            )
        return None


def _repeated(job: Job, step: int) -> int | None:
    """Steps that were done after ``step``, as far as the job told them."""
    done = (job.progress or {}).get("current_step")
    return max(0, done - step) if isinstance(done, int) else None
