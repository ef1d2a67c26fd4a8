"""Everything that is alive: what the log's writer decides against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from finetuned.domain import facts, job
from finetuned.domain.errors import NotFoundError
from finetuned.domain.job import Job

Json = Any


class RecordedEvent(Protocol):
    """What of an event of the log the fold looks at."""

    @property
    def seq(self) -> int: ...
    @property
    def stream(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def at(self) -> int: ...
    @property
    def actor(self) -> str: ...
    @property
    def cause(self) -> str | None: ...
    @property
    def data(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One schedulable device and the attempt that holds it."""

    id: str
    kind: str
    name: str
    memory_bytes: int
    holder: tuple[str, int] | None = None  # job id and attempt number
    gone: bool = False  # no longer found on the host; goes when its holder's end is proven


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that can be named."""

    name: str
    path: str
    kind: str
    base: str | None
    job: str | None
    lineage: dict[str, Json]
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token: its scope, and the hash of its secret."""

    id: str
    scope: str
    sha256: str
    name: str | None
    created_at: int
    revoked_at: int | None = None


#: facts about a job that change neither its state nor its attempts
_PASSING = (
    facts.JobProgress,
    facts.JobPhase,
    facts.JobAdvice,
    facts.EvaluationRecorded,
    facts.CheckpointSaved,
)

Lookup = Callable[[str], Job | None]


def _no_lookup(_job_id: str) -> Job | None:
    return None


class UnknownJobError(LookupError):
    """An event names a job that this world does not hold."""


@dataclass(slots=True)
class World:
    """Live jobs, devices, models and tokens: the fold of the log.

    Ended jobs are forgotten after their commit and looked up again in the projection when a command names one.
    """

    lookup: Lookup = _no_lookup
    jobs: dict[str, Job] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    generation: int = 0  # grows with whatever can change who runs, waits or holds what
    touched: set[str] = field(default_factory=set)  # jobs changed by the batch in progress
    slots_touched: bool = False
    models_touched: set[str] = field(default_factory=set)
    tokens_touched: set[str] = field(default_factory=set)

    def job(self, job_id: str) -> Job:
        """The job, live or ended. Raises ``NotFoundError`` if there is none (or it was deleted)."""
        found = self.jobs.get(job_id) or self.lookup(job_id)
        if found is None or found.deleted:
            raise NotFoundError(
                f"There is no job {job_id!r}. `finetune ls --all` lists every job.", param="id"
            )
        return found

    def live_jobs(self) -> Iterator[Job]:
        """The jobs that can still change their state."""
        return (each for each in self.jobs.values() if each.is_live)

    def apply(self, event: RecordedEvent) -> None:
        """Fold one event in."""
        fact = facts.decode(event.type, event.data)
        category, _, name = event.stream.partition("/")
        match category:
            case "job":
                self._apply_job(name, fact, event)
            case "devices":
                self._apply_devices(fact)
            case "model":
                self._apply_model(name, fact, event.at)
            case "token":
                self._apply_token(name, fact, event.at)

    def committed(self) -> None:
        """After COMMIT: forget the jobs that ended; the projection has them."""
        for job_id in self.touched:
            if not self.jobs[job_id].is_live:
                del self.jobs[job_id]
        self.touched.clear()
        self.models_touched.clear()
        self.tokens_touched.clear()
        self.slots_touched = False

    def _apply_job(self, job_id: str, fact: facts.Fact, event: RecordedEvent) -> None:
        if isinstance(fact, facts.JobSubmitted):
            after = job.submitted(job_id, fact, seq=event.seq, at=event.at, actor=event.actor)
        else:
            before = self.jobs.get(job_id) or self.lookup(job_id)
            if before is None:
                raise UnknownJobError(f"{event.type} for the unknown job {job_id}")
            after = job.evolve(before, fact, at=event.at)
            if event.cause is not None and event.cause.startswith("spool:"):
                after = job.at_line(after, int(event.cause[6:]))
        if not isinstance(fact, _PASSING):
            self.generation += 1
        self.jobs[job_id] = after
        self.touched.add(job_id)

    def _apply_devices(self, fact: facts.Fact) -> None:
        self.slots_touched = True
        self.generation += 1
        match fact:
            case facts.DevicesDetected():
                holders = {slot.id: slot.holder for slot in self.slots.values() if slot.holder}
                found = {
                    each["id"]: Slot(**each, holder=holders.pop(each["id"], None)) for each in fact.devices
                }
                # A device that vanished stays while it is held: its holder's end is not proven yet.
                self.slots = found | {gone: replace(self.slots[gone], gone=True) for gone in holders}
            case facts.DeviceClaimed():
                for device in fact.devices:
                    self.slots[device] = replace(self.slots[device], holder=(fact.job, fact.attempt))
            case facts.DeviceReleased():
                for device in fact.devices:
                    slot = self.slots.pop(device, None)
                    if slot is not None and not slot.gone:
                        self.slots[device] = replace(slot, holder=None)

    def _apply_model(self, name: str, fact: facts.Fact, at: int) -> None:
        self.models_touched.add(name)
        match fact:
            case facts.ModelRegistered():
                self.models[name] = Model(**fact.to_data(), created_at=at)
            case facts.ModelDeleted():
                self.models.pop(name, None)

    def _apply_token(self, token_id: str, fact: facts.Fact, at: int) -> None:
        self.tokens_touched.add(token_id)
        match fact:
            case facts.TokenCreated():
                self.tokens[token_id] = Token(**fact.to_data(), created_at=at)
            case facts.TokenRevoked():
                self.tokens[token_id] = replace(self.tokens[token_id], revoked_at=at)
