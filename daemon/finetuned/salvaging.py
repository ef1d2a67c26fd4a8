"""Looks, before a job ends without success, for what its attempts have left, and has its kind make results of it."""

from __future__ import annotations

import errno
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from finetuned.domain import facts
from finetuned.domain.errors import StorageFullError
from finetuned.domain.job import Job
from finetuned.domain.salvage import NOTHING, Fate, Salvage
from finetuned_sdk import JobError, JobKind, Registry, manifest
from finetuned_sdk.salvage import Leftovers, Salvaged

log = logging.getLogger(__name__)

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Salvager:
    """``jobs_dir`` holds the jobs' files. One job at a time: it reads all that the job has left."""

    registry: Registry
    jobs_dir: Path
    _one: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    _turns: WeakValueDictionary[str, anyio.Lock] = field(default_factory=WeakValueDictionary)

    def turn(self, job_id: str) -> anyio.Lock:
        """Hold it from the salvage of a job until what was made is recorded: two would write the same files."""
        return self._turns.setdefault(job_id, anyio.Lock())

    def can(self, job: Job | None) -> bool:
        """Whether something may be made of what a job leaves."""
        return job is not None and self._kind(job) is not None

    async def of_cancelled(self, job: Job | None, reason: str | None) -> Salvage | None:
        """What to record of a job that a cancel would end at once; ``None`` if an attempt of it has to end first.

        Raises ``StorageFullError``.
        """
        if job is None or not self.can(job):
            return NOTHING
        if job.live_attempt is not None:
            return None
        try:
            return await self.salvage(job, Fate(was_cancelled=True, reason=reason))
        except OSError as error:
            raise StorageFullError(
                f"There is no room on the disk for what {job.id} has finished ({error}); make some, then cancel it."
            ) from None

    async def salvage(self, job: Job, fate: Fate) -> Salvage:
        """What to record before the job's end; nothing if nothing could be made.

        Raises ``OSError`` where there is no room on the disk for it.
        """
        kind = self._kind(job)
        if kind is None:
            return NOTHING
        try:
            return await anyio.to_thread.run_sync(self._made, kind, job, fate, limiter=self._one)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            log.warning("Nothing was made of what %s has left: %s", job.id, error)
        except JobError as error:
            log.warning("Nothing was made of what %s has left: %s", job.id, error.message)
        except Exception:  # a plugin's code: the job ends all the same
            log.exception("Nothing was made of what %s has left", job.id)
        return NOTHING

    def _kind(self, job: Job) -> JobKind | None:
        kind = self.registry.job_kinds.get(job.kind)
        return kind if kind is not None and kind.salvage is not None else None

    def _made(self, kind: JobKind, job: Job, fate: Fate) -> Salvage:
        assert kind.salvage is not None
        attempts = self.jobs_dir / job.id / "attempts"
        newest = 1 if job.attempt is None else job.attempt.number
        left = Leftovers(
            job=job.id,
            params={**job.params, **job.overrides},
            attempts=attempts,
            artifacts=attempts / str(newest) / "artifacts",
            was_cancelled=fate.was_cancelled,
            reason=fate.reason,
            datasets={param: each["path"] for param, each in job.datasets.items()},
        )
        return Salvage(_facts(job, kind.salvage(left), newest), fate)


def _facts(job: Job, made: Salvaged, attempt: int) -> list[facts.Fact]:
    progress = [facts.JobProgress({**(job.progress or {}), **made.progress})] if made.progress else []
    return [*progress, *(_published(path, kind, attempt) for path, kind in made.artifacts)]


def _published(path: Path, kind: str, attempt: int) -> facts.ArtifactPublished:
    content = manifest.seal(path, kind=kind)
    return facts.ArtifactPublished(
        attempt=attempt,
        name=path.name,
        kind=kind,
        path=str(path),
        bytes=content.total_bytes,
        files=[asdict(each) for each in content.files],
    )
