"""Files of the OpenAI API: which of them a job makes, and what a name stands for; pure, as the decisions are.

A job's artifact of the kind ``file:PURPOSE`` becomes a file with that purpose when the job ends, however it ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from finetuned.domain import facts, ids
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.job import Job
from finetuned.domain.registers import File
from finetuned.domain.streams import event
from finetuned.domain.world import World
from finetuned_events import NewEvent

Json = Any
Events = list[NewEvent]

PREFIX: Final = "file-"
MADE: Final = "file:"  # how the kind of an artifact begins that becomes a file
ID: Final = re.compile(rf"{PREFIX}[{ids.ALPHABET}]{{{ids.LENGTH}}}")
PURPOSES: Final = ("fine-tune", "batch", "user_data", "evals", "vision")  #: of files that are sent
KEPT_S: Final = {"batch": 30 * 86_400, "batch_output": 30 * 86_400}  #: how long by purpose; others for ever
KEPT_PARAM: Final = "output_expires_after_s"  # of a job that says itself how long
EXPIRED: Final = "expired"

ENDS: Final = frozenset({facts.JobSucceeded.type, facts.JobFailed.type, facts.JobCancelled.type})


class NoSuchFileError(NotFoundError):
    """There is no such file (any more)."""

    code: ClassVar[str] = "file_not_found"


class FileExpiredError(NotFoundError):
    """The file's time is over."""

    code: ClassVar[str] = "file_expired"


def made_id(job_id: str, artifact_name: str) -> str:
    """The id of the file that a job's artifact becomes."""
    return ids.derived(PREFIX, job_id, artifact_name)


def is_id(value: str) -> bool:
    """Whether a value is spelled as the id of a file is."""
    return ID.fullmatch(value) is not None


def with_made(job: Job, events: Events, *, actor: str = "supervisor") -> Events:
    """The events, and if they end the job, those of the files that it made."""
    if not any(each.type in ENDS for each in events):
        return events
    published = [*job.artifacts, *(each.data for each in events if each.type == facts.ArtifactPublished.type)]
    newest = {each["name"]: each for each in published if each["kind"].startswith(MADE)}
    return [*events, *(_created(made(job, each), actor) for each in newest.values())]


def made(job: Job, artifact: Mapping[str, Json]) -> facts.FileCreated:
    """The file that an artifact becomes."""
    purpose = artifact["kind"].removeprefix(MADE)
    asked = job.params.get(KEPT_PARAM)
    return facts.FileCreated(
        id=made_id(job.id, artifact["name"]),
        filename=artifact["name"],
        purpose=purpose,
        path=artifact["path"],
        bytes=artifact["bytes"],
        expires_after_s=asked if isinstance(asked, int) else KEPT_S.get(purpose),
        job=job.id,
    )


def create(fact: facts.FileCreated, *, actor: str) -> Events:
    """Record a file whose content is on disk."""
    return [_created(fact, actor)]


def delete(world: World, file_id: str, *, actor: str) -> Events:
    """Free a file's name. A live job goes on reading its content. Raises ``NotFoundError`` if there is none."""
    if file_id not in world.files:
        raise unknown(file_id)
    return [_deleted(world.files[file_id], None, actor)]


def expire(world: World, *, now: int, actor: str) -> Events:
    """Free the names of all files whose time is over. ``now`` is in microseconds since the epoch."""
    return [_deleted(each, EXPIRED, actor) for each in world.files.values() if has_expired(each, now=now)]


def has_expired(file: File, *, now: int) -> bool:
    """Whether a file's time is over. ``now`` is in microseconds since the epoch."""
    return file.expires_at is not None and file.expires_at <= now


@dataclass(frozen=True, slots=True)
class Known:
    """The files there are, ``now`` in microseconds since the epoch."""

    files: Mapping[str, File]
    now: int

    def find(self, file_id: str) -> File:
        """The file of that id. Raises ``NotFoundError``, with a code of its own for one that has expired."""
        found = self.files.get(file_id)
        if found is None:
            raise unknown(file_id)
        if has_expired(found, now=self.now):
            raise FileExpiredError(f"The file {file_id} has expired; upload it again.", param="file_id")
        return found


NONE: Final = Known({}, now=0)


def unknown(file_id: str) -> NoSuchFileError:
    """The refusal of an id that stands for nothing."""
    return NoSuchFileError(
        f"There is no file {file_id[:80]!r} (any more: it may have been deleted, or have expired); `finetune files`"
        " lists those there are.",
        param="file_id",
    )


def unreadable(error: Rejected) -> Rejected:
    """That a file's content is not there as it was taken in, for a refusal of it as a data set's."""
    return Rejected(
        "file_unreadable", f"The file's content is gone or was changed ({error.message}); upload it again."
    )


def is_used(world: World, used: Mapping[str, Json]) -> bool:
    """Whether what a job uses is a file that is there."""
    file = world.files.get(used["name"])
    return file is not None and file.path == used["path"]


def _created(fact: facts.FileCreated, actor: str) -> NewEvent:
    return event(f"file/{fact.id}", fact, actor)


def _deleted(file: File, reason: str | None, actor: str) -> NewEvent:
    return event(f"file/{file.id}", facts.FileDeleted(id=file.id, reason=reason, job=file.job), actor)
