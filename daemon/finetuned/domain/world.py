"""Everything that is alive: what the log's writer decides against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from finetuned.domain import facts, job, registers
from finetuned.domain.errors import NotFoundError
from finetuned.domain.job import Job
from finetuned.domain.registers import (
    AcceptedRequest,
    Alias,
    Dataset,
    File,
    Model,
    Shelf,
    Template,
    Token,
    Webhook,
)

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


#: facts about a job that change neither its state nor its attempts
_PASSING = (
    facts.JobProgress,
    facts.JobPhase,
    facts.JobAdvice,
    facts.EvaluationRecorded,
    facts.CheckpointSaved,
    facts.AttemptAlert,
    facts.JobMeasured,
)

Lookup = Callable[[str], Job | None]


def _no_lookup(_job_id: str) -> Job | None:
    return None


class UnknownJobError(LookupError):
    """An event names a job that this world does not hold."""


@dataclass(slots=True)
class World:
    """Live jobs, devices and registers: the fold of the log.

    Ended jobs are forgotten after their commit and looked up again in the projection when a command names one.
    """

    lookup: Lookup = _no_lookup
    jobs: dict[str, Job] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    models: Shelf[Model] = field(default_factory=Shelf)
    datasets: Shelf[Dataset] = field(default_factory=Shelf)
    templates: Shelf[Template] = field(default_factory=Shelf)
    template_versions: Shelf[int] = field(default_factory=Shelf)  # the highest that each name ever had
    tokens: Shelf[Token] = field(default_factory=Shelf)
    requests: Shelf[AcceptedRequest] = field(default_factory=Shelf)
    files: Shelf[File] = field(default_factory=Shelf)
    aliases: Shelf[Alias] = field(default_factory=Shelf)
    webhooks: Shelf[Webhook] = field(default_factory=Shelf)
    generation: int = 0  # grows with whatever can change who runs, waits or holds what
    touched: set[str] = field(default_factory=set)  # jobs changed by the batch in progress
    slots_touched: bool = False

    def job(self, job_id: str) -> Job:
        """The job, live or ended. Raises ``NotFoundError`` if there is none (or it was deleted)."""
        found = self.jobs.get(job_id) or self.lookup(job_id)
        if found is None or found.deleted:
            raise NotFoundError(
                f"There is no job {job_id!r}. `finetune ls --all` lists every job.", param="id"
            )
        return found

    @property
    def shelves(self) -> dict[str, Shelf[Any]]:
        """The registers by name."""
        return {
            "models": self.models,
            "datasets": self.datasets,
            "templates": self.templates,
            "template_versions": self.template_versions,
            "tokens": self.tokens,
            "requests": self.requests,
            "files": self.files,
            "aliases": self.aliases,
            "webhooks": self.webhooks,
        }

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
                registers.fold_model(self.models, fact, event.at)
            case "dataset":
                registers.fold_dataset(self.datasets, fact, event.at, event.actor)
            case "template":
                registers.fold_template(self.templates, self.template_versions, fact, event.at, event.actor)
            case "token":
                registers.fold_token(self.tokens, fact, event.at)
            case "request":
                registers.fold_request(self.requests, fact, event.at)
            case "file":
                registers.fold_file(self.files, fact, seq=event.seq, at=event.at, actor=event.actor)
            case "alias":
                registers.fold_alias(self.aliases, fact, event.at, event.actor)
            case "webhook":
                registers.fold_webhook(self.webhooks, fact, seq=event.seq, at=event.at)

    def committed(self) -> None:
        """After COMMIT: forget the jobs that ended; the projection has them."""
        for job_id in self.touched:
            if not self.jobs[job_id].is_live:
                del self.jobs[job_id]
        self.touched.clear()
        for shelf in self.shelves.values():
            shelf.touched.clear()
        self.slots_touched = False

    def _apply_job(self, job_id: str, fact: facts.Fact, event: RecordedEvent) -> None:
        if isinstance(fact, facts.JobSubmitted):
            after = job.submitted(job_id, fact, seq=event.seq, at=event.at, actor=event.actor)
        else:
            before = self.jobs.get(job_id) or self.lookup(job_id)
            if before is None:
                raise UnknownJobError(f"{event.type} for the unknown job {job_id}")
            after = job.evolve(before, fact, at=event.at, seq=event.seq)
            if event.cause is not None and event.cause.startswith("spool:"):
                after = job.at_line(after, int(event.cause[6:]))
        if isinstance(fact, facts.DatasetAudited):
            registers.fold_audit(self.datasets, fact, job_id, event.at)
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
