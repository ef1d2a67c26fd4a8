"""Which ended jobs' files have been kept long enough; pure, as :mod:`finetuned.domain.decisions` is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from finetuned.domain import dependencies, facts
from finetuned.domain.errors import Rejected
from finetuned.domain.streams import job_event
from finetuned.domain.world import World
from finetuned_events import NewEvent

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """How long files of ended jobs are kept: for ``days`` after the job's end, ``bytes`` in all; ``None`` for ever."""

    days: float | None = None
    bytes: int | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever removed."""
        return self.days is None and self.bytes is None


@dataclass(frozen=True, slots=True)
class Kept:
    """An ended job whose files are on disk. ``finished_at`` is in microseconds since the epoch."""

    job: str
    finished_at: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Due:
    """A job whose files are to go, and why."""

    kept: Kept
    reason: str


def due(kept: Iterable[Kept], policy: Policy, *, now: int, needed: int = 0) -> Iterator[Due]:
    """The jobs whose files are to go, those that ended longest ago first.

    ``needed`` bytes are of jobs whose files must stay: they count, and others go for them.
    """
    in_order = sorted(kept, key=lambda each: (each.finished_at, each.job))
    total = needed + sum(each.bytes for each in in_order)
    for each in in_order:
        if policy.days is not None and now - each.finished_at > policy.days * DAY_US:
            reason = f"it ended more than {policy.days:g} days ago (keep_jobs_days)"
        elif policy.bytes is not None and total > policy.bytes:
            reason = f"the files of ended jobs took {total} bytes, more than {policy.bytes} (keep_jobs_bytes)"
        else:
            continue
        total -= each.bytes
        yield Due(each, reason)


def remove_files(world: World, job_id: str, *, reason: str, size: int, actor: str) -> list[NewEvent]:
    """Have the files of an ended job removed; its events stay. Twice changes nothing.

    Rejected for a live one, and for one whose files a model, a dataset or a live job needs.
    """
    job = world.job(job_id)
    if job.files_removed is not None:
        return []
    if job.is_live:
        raise Rejected(
            "job_live", f"Job {job_id} is {job.state}; cancel it first (`finetune cancel {job_id}`)."
        )
    dependencies.require_free(world, job_id)
    return [job_event(job_id, facts.JobFilesRemoved(reason=reason, bytes=size), actor=actor)]
