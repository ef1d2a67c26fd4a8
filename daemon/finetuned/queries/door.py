"""The way in for everything that only looks. Every door maps onto these methods."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from finetuned.board import Board
from finetuned.domain import alias_decisions, model_names, tokens
from finetuned.domain.errors import InvalidRequestError, ModelNotFoundError, NotFoundError
from finetuned.domain.job import Job
from finetuned.domain.registers import Alias, Model, Token
from finetuned.domain.situation import CALM, Situation
from finetuned.domain.waits import Wait, Waits, wait_of
from finetuned.domain.world import Slot
from finetuned.looking import few
from finetuned.queries import moments
from finetuned.queries.batches import BatchQueries
from finetuned.queries.datasets import DatasetQueries
from finetuned.queries.files import FileQueries
from finetuned.queries.fine_tuning import FineTuningQueries
from finetuned.queries.lineage import LineageQueries
from finetuned.queries.observation import Observation
from finetuned.queries.output import OutputQueries
from finetuned.queries.past import Past
from finetuned.queries.results import Reading
from finetuned.queries.templates import TemplateQueries
from finetuned.queries.webhooks import UnderWay, WebhookQueries
from finetuned.spelling import nearest
from finetuned.store import Log, job_from, queries
from finetuned_events import Event, LogStatistics, Page, VerifyReport
from finetuned_sdk import JobKind, Registry

#: streams with hashes and scopes of tokens, names of secrets, fingerprints of requests, and addresses of receivers
GUARDED = ("token/", "secret/", "request/", "webhook/")
INLINE_JOBS = 50  # jobs that are decoded or put in order on the event loop; more of them in a thread


def is_guarded(event: Event) -> bool:
    """Whether an event is for administrators only, as the routes are that show what it tells."""
    return event.stream.startswith(GUARDED)


@dataclass(frozen=True, slots=True)
class Shown:
    """A job, why it waits, and the position up to which its events are in it (later ones may be)."""

    job: Job
    wait: Wait | None
    seq: int


@dataclass(slots=True)
class Queries:
    """What can be looked at.

    ``situation`` is what the scheduler knows beside the log, ``jobs_dir`` holds the jobs' files. ``observation`` looks at the machine and at what runs.
    ``now`` is the wall clock in microseconds since the epoch, by which tokens expire. Files beneath ``data_roots`` are
    opened beneath them.
    """

    log: Log
    board: Board
    registry: Registry
    jobs_dir: Path
    observation: Observation
    data_roots: tuple[Path, ...] = ()
    situation: Callable[[], Situation] = field(default=lambda: CALM)
    now: Callable[[], int] = field(default=lambda: time.time_ns() // 1000)
    under_way: Callable[[str], UnderWay | None] = field(
        default=lambda _webhook: None
    )  # deliveries to webhooks
    reading: Reading = field(init=False)  # what is read of one job's events and files
    past: Past = field(init=False)  # what was
    templates: TemplateQueries = field(init=False)
    output: OutputQueries = field(init=False)  # what jobs printed
    _threads: CapacityLimiter = field(default_factory=few)  # that look into files
    _waits: tuple[tuple[object, ...], Waits] | None = None

    def __post_init__(self) -> None:
        self.templates = TemplateQueries(self.log, self.board)
        self.output = OutputQueries(self.jobs_dir, self.job, self._threads)
        self.reading = Reading(self.log, self.jobs_dir)
        self.past = Past(self.log)

    async def position(self, at: str, *, param: str = "at") -> int:
        """The position of a moment: a position itself, or an RFC 3339 time. Raises ``InvalidRequestError``."""
        return await moments.position(self.log, at, param=param)

    @property
    def webhooks(self) -> WebhookQueries:
        """What can be looked at of webhooks."""
        return WebhookQueries(self.log, self.board, self.under_way)

    @property
    def datasets(self) -> DatasetQueries:
        """What can be looked at of datasets."""
        return DatasetQueries(self.board, self.data_roots, self._threads)

    @property
    def files(self) -> FileQueries:
        """What can be looked at of files."""
        return FileQueries(self.log, self.board, self.reading, self.job, self.now)

    @property
    def batches(self) -> BatchQueries:
        """What can be looked at of batches."""
        return BatchQueries(self)

    async def job(self, job_id: str) -> Job:
        """One job, live or ended. Raises ``NotFoundError``."""
        world = await self.board.world()
        return world.jobs[job_id] if job_id in world.jobs else await self._ended(job_id)

    async def shown(self, job_id: str) -> Shown:
        """One job with what is known about it beside its own events. Raises ``NotFoundError``."""
        world = await self.board.world()
        seq = self.log.head  # the board is there, and what is read from the file below is not older
        if job_id in world.jobs:
            job = world.jobs[job_id]
            wait = wait_of(job, world.jobs.values(), world.slots.values(), self.situation())
            return Shown(job, wait, seq)
        return Shown(await self._ended(job_id), None, seq)

    @property
    def fine_tuning(self) -> FineTuningQueries:
        """What can be looked at of fine-tuning jobs, as OpenAI's clients name them."""
        return FineTuningQueries(self.log, self.job)

    @property
    def lineage(self) -> LineageQueries:
        """Where models come from, and what makes sense next."""
        return LineageQueries(self.board, self.job, self._waiting, frozenset(self.registry.job_kinds))

    async def _waiting(self, job_id: str) -> tuple[Job, Wait | None]:
        shown = await self.shown(job_id)
        return shown.job, shown.wait

    async def _ended(self, job_id: str) -> Job:
        rows = await self.log.fetch(queries()["select_job"], (job_id,))
        job = job_from(rows[0][0]) if rows else None
        if job is None or job.deleted:
            raise NotFoundError(f"There is no job {job_id!r}. `finetune ls` lists the jobs.", param="id")
        return job

    async def jobs(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
    ) -> tuple[list[Job], bool]:
        """A page of jobs, newest first, and whether there are more. ``after`` is the last page's last id."""
        before = await self._seq_of(after) if after else sys.maxsize
        rows = await self.log.fetch(queries()["select_jobs"], (before, state, kind, name, limit + 1))
        found = [row[0] for row in rows[:limit]]
        if len(found) <= INLINE_JOBS:
            return [job_from(document) for document in found], len(rows) > limit
        return await anyio.to_thread.run_sync(lambda: [job_from(each) for each in found]), len(rows) > limit

    async def succeeded(self, kind: str, *, limit: int) -> list[Job]:
        """The newest jobs of a kind that have succeeded."""
        rows = await self.log.fetch(queries()["select_jobs"], (sys.maxsize, "succeeded", kind, None, limit))
        return await anyio.to_thread.run_sync(lambda: [job_from(row[0]) for row in rows])

    async def _seq_of(self, job_id: str) -> int:
        """The place among jobs of one that may have been deleted between two pages."""
        rows = await self.log.fetch(queries()["select_job"], (job_id,))
        if not rows:
            raise InvalidRequestError(
                f"after: there is no job {job_id!r}; give the last id of the page before.", param="after"
            )
        return job_from(rows[0][0]).seq

    async def waits(self) -> Waits:
        """Why each live job waits, by id; computed when asked for, once for each generation of the world."""
        world = await self.board.world()
        situation = self.situation()
        known_for = (world.generation, situation)
        if self._waits is not None and self._waits[0] == known_for:
            return self._waits[1]
        live, slots = list(world.live_jobs()), list(world.slots.values())
        work = partial(Waits, live, slots, situation)
        waits = work() if len(live) <= INLINE_JOBS else await anyio.to_thread.run_sync(work)
        self._waits = (known_for, waits)
        return waits

    async def events(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        stream: str | None = None,
        types: Collection[str] | None = None,
        guarded: bool = True,
    ) -> tuple[Page, bool]:
        """A page of events in order with how far was looked, and whether to look on from there.

        The look is bounded: with a filter a page may be short or empty although there are more before the head.
        Without ``guarded`` those for administrators only are left out.
        """
        head = self.log.head
        page = await self.log.scan(after=after, limit=limit + 1, stream=stream, types=types)
        has_more = page.scanned < head
        if len(page.events) > limit:
            found = page.events[:limit]
            page, has_more = Page(found, found[-1].seq), True
        if not guarded:
            page = Page([event for event in page.events if not is_guarded(event)], page.scanned)
        return page, has_more

    async def follow(
        self, *, after: int, stream: str | None = None, types: Collection[str] | None = None
    ) -> AsyncIterator[list[Event]]:
        """Pages of events from ``after`` on, for ever."""
        async for page in self.log.follow(after=after, stream=stream, types=types):
            yield page

    @property
    def head(self) -> int:
        """The position of the newest event."""
        return self.log.head

    async def wait(self, beyond: int) -> int:
        """Wait until there is an event beyond a position; the head."""
        return await self.log.wait(beyond)

    def recent(self, after: int) -> tuple[Event, ...] | None:
        """The events beyond ``after`` from memory; ``None`` if some of them are only on disk."""
        return self.log.recent(after)

    async def scan(
        self, *, after: int, limit: int, stream: str | None = None, types: Collection[str] | None = None
    ) -> Page:
        """A page of events with the position that was looked at; short work whatever the filter."""
        return await self.log.scan(after=after, limit=limit, stream=stream, types=types)

    async def archived(self, stream: str | None = None) -> int:
        """Up to where the events, of all streams or of one, are in archives; 0 if none are."""
        return self.log.sealed if stream is None else await self.log.archived(stream)

    async def log_statistics(self) -> LogStatistics:
        """Figures about the log."""
        return await self.log.statistics()

    async def verify_log(self) -> VerifyReport:
        """Check the whole log: hash chain, gaps, versions, the file's structure. Takes seconds on a large log."""
        return await self.log.verify()

    async def kinds(self) -> list[JobKind]:
        """The job kinds that plugins declare, by name."""
        return sorted(self.registry.job_kinds.values(), key=lambda kind: kind.name)

    async def models(self) -> list[Model]:
        """The registered models, by name."""
        world = await self.board.world()
        return sorted(world.models.values(), key=lambda model: model.name)

    async def model(self, name: str) -> Model:
        """The registered model that a name stands for: its own, an ``ft:`` name or an alias. Raises ``ModelNotFoundError``."""
        world = await self.board.world()
        found = model_names.find(name, world.models, world.aliases)
        if found is None:
            known = nearest(name, model_names.known(world.models, world.aliases))
            raise ModelNotFoundError(
                f"There is no model {name[:200]!r}.{known} `finetune models` lists them.", param="model"
            )
        return found

    async def aliases(self) -> list[Alias]:
        """The aliases of models, by name."""
        world = await self.board.world()
        return sorted(world.aliases.values(), key=lambda alias: alias.alias)

    async def alias(self, name: str) -> Alias:
        """One alias. Raises ``NotFoundError``."""
        world = await self.board.world()
        if name not in world.aliases:
            raise alias_decisions.unknown(world, name)
        return world.aliases[name]

    async def tokens(self) -> list[Token]:
        """All tokens, revoked ones too; never a secret."""
        world = await self.board.world()
        return sorted(world.tokens.values(), key=lambda token: token.created_at)

    async def token(self, secret: str) -> Token | None:
        """The token, open or not, whose secret this is."""
        world = await self.board.world()
        return tokens.find(world.tokens, secret)

    async def may_go_on(self, actor: str) -> bool:
        """Whether ``actor`` may keep what it has open: not if its token was revoked or has expired since."""
        kind, _, token_id = actor.partition(":")
        if kind != "token":
            return True
        world = await self.board.world()
        return token_id in world.tokens and tokens.is_open(world.tokens[token_id], self.now())

    async def devices(self) -> list[Slot]:
        """The devices that this host schedules and who holds them."""
        world = await self.board.world()
        return sorted(world.slots.values(), key=lambda slot: slot.id)
