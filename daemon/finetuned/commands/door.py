"""The way in for everything that changes something. Every door (REST, CLI, …) maps onto these methods."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio.to_thread

from finetuned import checkpoint_names, templates
from finetuned.access.path_policy import NOWHERE, PathPolicy
from finetuned.commands import foretelling
from finetuned.commands.aliases import AliasCommands
from finetuned.commands.appending import Appending
from finetuned.commands.archiving import ArchiveCommands
from finetuned.commands.batches import BatchCommands, BatchLimits
from finetuned.commands.datasets import AuditPlan, DatasetCommands
from finetuned.commands.files import FileCommands
from finetuned.commands.fine_tuning import FineTuningCommands
from finetuned.commands.pauses import PauseCommands
from finetuned.commands.secrets import SecretCommands
from finetuned.commands.templates import TemplateCommands
from finetuned.commands.tokens import TokenCommands
from finetuned.commands.webhooks import WebhookCommands
from finetuned.commands.workers import WorkerCommands
from finetuned.domain import decisions, ids
from finetuned.domain.errors import InvalidRequestError, Rejected
from finetuned.domain.files import Known
from finetuned.domain.idempotency import Once
from finetuned.domain.job import Job
from finetuned.domain.salvage import SalvageDueError
from finetuned.draining import Drain, Mode
from finetuned.engines.defaults import EngineDefaults
from finetuned.engines.target import Names
from finetuned.estimates import dry_run, history
from finetuned.job_request import DEFAULT_MAX_ATTEMPTS, JobRequest, Limits, Timeouts
from finetuned.openai import batches
from finetuned.queries.door import Queries
from finetuned.results import checkpoints
from finetuned.salvaging import Salvager
from finetuned.secrets.scan import refuse_secrets
from finetuned.submission import Prepared, prepare, refuse_engine, require_fit
from finetuned_events import BackupError, BackupReport, RebuildReport
from finetuned_sdk import Host, Registry


def new_id(prefix: str) -> str:
    """A random id: 50 bits, readable."""
    return prefix + "".join(secrets.choice(ids.ALPHABET) for _ in range(ids.LENGTH))


@dataclass(slots=True)
class Commands:
    """What can be asked of the daemon. Each method returns after its events are on disk.

    ``host`` describes the machine; ``check_room`` raises ``StorageFullError`` when no more work is taken on.
    ``paths`` says which paths on the server everybody may name in a job; ``may_name_paths`` is said of a caller who
    may name any.
    Methods with ``once`` do their work once however often they are called with the same ``Once``.
    """

    appending: Appending
    queries: Queries
    registry: Registry
    host: Callable[[], Awaitable[Host]]
    check_room: Callable[[], Awaitable[None]]
    secrets: SecretCommands
    datasets: DatasetCommands
    files: FileCommands
    webhooks: WebhookCommands
    paths: PathPolicy = NOWHERE
    default_max_attempts: int = DEFAULT_MAX_ATTEMPTS
    batch_limits: BatchLimits = BatchLimits()  # noqa: RUF009 - frozen
    engine_defaults: EngineDefaults = field(default_factory=EngineDefaults)
    new_id: Callable[[str], str] = field(default=new_id)
    aliases: AliasCommands = field(init=False)
    templates: TemplateCommands = field(init=False)
    workers: WorkerCommands = field(init=False)
    pauses: PauseCommands = field(init=False)
    fine_tuning: FineTuningCommands = field(init=False)
    batches: BatchCommands = field(init=False)
    drain: Drain = field(init=False)
    archives: ArchiveCommands = field(init=False)
    salvager: Salvager = field(init=False)
    tokens: TokenCommands = field(init=False)

    def __post_init__(self) -> None:
        self.aliases = AliasCommands(self.appending)
        self.tokens = TokenCommands(self.appending, self.new_id)
        self.templates = TemplateCommands(self.appending, self.registry, self.paths)
        self.workers = WorkerCommands(self.appending, self.queries)
        self.pauses = PauseCommands(self.appending, self.queries)
        self.fine_tuning = FineTuningCommands(self.appending, self.queries, self.submit, self.new_id)
        self.batches = BatchCommands(self.appending, self.queries, self.submit, self.batch_limits)
        self.drain = Drain(self.appending.log, self.appending.board)
        self.archives = ArchiveCommands(self.appending.log, self.appending.board, self.check_room)
        self.salvager = Salvager(self.registry, self.queries.jobs_dir)

    async def submit(
        self,
        request: JobRequest,
        *,
        actor: str,
        may_name_paths: bool = False,
        once: Once | None = None,
        job_id: str | None = None,
    ) -> Job:
        """Accept a job, under ``job_id`` if its request names what is called after it.

        Raises ``InvalidRequestError``, ``PathNotAllowedError``, ``StorageFullError`` or ``Rejected``.
        """
        if done := await self.appending.earlier(once):
            return await self.queries.job(done.removeprefix("job/"))
        return await self._submit(
            request, actor=actor, may_name_paths=may_name_paths, once=once, job_id=job_id
        )

    async def dry_run(
        self, request: JobRequest, *, actor: str, may_name_paths: bool = False
    ) -> dry_run.DryRun:
        """What would come of a request; nothing is recorded. It raises as ``submit`` does, but not for what does not fit."""
        request, _template = await self._completed(request)
        await self.check_room()
        refuse_engine(request.kind, self.registry, actor=actor)
        prepared = await self._prepared(request, may_name_paths=may_name_paths, must_fit=False)
        world = await self.appending.board.world()
        decisions.submit(world, dry_run.ID, prepared.fact, actor=actor)  # for what it would reject
        start = dry_run.start_of(prepared.fact, world, self.queries.situation(), now=self.queries.now())
        ended = await self.queries.succeeded(prepared.kind.name, limit=history.LOOKED_AT)
        return await anyio.to_thread.run_sync(lambda: foretelling.dry_run(prepared, start, ended))

    async def cancel(
        self, job_id: str, *, actor: str, reason: str | None = None, once: Once | None = None
    ) -> Job:
        """Ask a job to end. Raises ``NotFoundError``, or ``Rejected`` if it has ended."""
        refuse_secrets(reason, where="reason")
        batches.require_reason(reason, actor=actor)
        async with self.salvager.turn(job_id):
            while True:
                world = await self.appending.board.world()
                salvaged = await self.salvager.of_cancelled(world.jobs.get(job_id), reason)
                try:
                    await self.appending.execute(
                        partial(
                            decisions.cancel, job_id=job_id, actor=actor, reason=reason, salvaged=salvaged
                        ),
                        subject=f"job/{job_id}",
                        actor=actor,
                        once=once,
                        necessary=True,
                    )
                except SalvageDueError:
                    continue  # its attempt has ended meanwhile
                break
        return await self.queries.job(job_id)

    async def retry(
        self,
        job_id: str,
        *,
        actor: str,
        from_checkpoint: str | None = None,
        priority: int | None = None,
        may_name_paths: bool = False,
        once: Once | None = None,
    ) -> Job:
        """Submit an ended job again as a new one, from ``from_checkpoint`` (a step, ``latest``, an id) if named.

        It is checked as a new one is: who may not name its paths may not repeat it either.
        """
        if done := await self.appending.earlier(once):
            return await self.queries.job(done.removeprefix("job/"))
        old = await self.queries.job(job_id)
        if old.is_live:
            raise Rejected("job_live", f"Job {job_id} is {old.state}; only an ended job can be tried again.")
        request = JobRequest(
            kind=old.kind,
            params=old.params,
            priority=old.priority if priority is None else priority,
            name=old.name,
            metadata=old.metadata,
            max_attempts=old.max_attempts,
            secrets={name: reference for name, reference in old.secrets.items() if name != reference},
            timeouts=Timeouts.model_validate(old.timeouts),
            limits=Limits.model_validate(old.limits),
            preemptible=old.preemptible,
            reduces_batch=old.reduces_batch,
            ignores_estimate=old.ignores_estimate,
        )
        resume_from = None
        if from_checkpoint is not None:
            found = await anyio.to_thread.run_sync(checkpoints.find, old, from_checkpoint)
            resume_from = found.path
        return await self._submit(
            request,
            actor=actor,
            may_name_paths=may_name_paths,
            once=once,
            retry_of=old,
            resume_from=resume_from,
        )

    async def audit(
        self,
        dataset: str,
        plan: AuditPlan,
        *,
        actor: str,
        may_name_paths: bool = False,
        once: Once | None = None,
    ) -> Job:
        """Submit a job that reads a dataset as a training would. Raises ``NotFoundError``, and as ``submit``."""
        if done := await self.appending.earlier(once):
            return await self.queries.job(done.removeprefix("job/"))
        version = await self.queries.datasets.version(dataset, plan.version)
        return await self._submit(
            plan.request(dataset, version), actor=actor, may_name_paths=may_name_paths, once=once
        )

    async def delete(self, job_id: str, *, actor: str) -> None:
        """Hide an ended job and have its files removed. Raises ``Rejected`` while it is live."""
        await self.appending.log.execute(
            lambda world: decisions.delete(world, job_id, actor=actor), necessary=True
        )

    async def delete_model(self, name: str, *, actor: str) -> None:
        """Free a model's name; its files stay. Raises ``NotFoundError`` if there is none."""
        await self.appending.log.execute(
            lambda world: decisions.delete_model(world, name, actor=actor), necessary=True
        )

    async def begin_drain(
        self,
        mode: Mode,
        *,
        actor: str,
        reason: str | None = None,
        wait_s: float | None = None,
        once: Once | None = None,
    ) -> None:
        """Start nothing new from now on, and end the daemon when nothing runs any more."""
        refuse_secrets(reason, where="reason")
        if await self.appending.earlier(once):
            return
        await self.drain.begin(
            mode,
            actor=actor,
            reason=reason,
            wait_s=wait_s,
            append=lambda decide: self.appending.execute(
                decide, subject="daemon", actor=actor, once=once, necessary=True
            ),
        )

    async def take_drain_back(self, *, actor: str) -> None:
        """Go on as before. Raises ``Rejected`` if the daemon does not drain, or has done so."""
        self.drain.take_back()
        await self.appending.log.execute(
            lambda _world: decisions.drain_taken_back(actor=actor), necessary=True
        )

    async def rebuild_log(self) -> RebuildReport:
        """Replay the log and swap in what differs from the projections. Takes seconds on a large log."""
        return await self.appending.log.rebuild()

    async def backup_log(self, destination: Path) -> BackupReport:
        """Write a checked copy of the log to a new file. Raises ``InvalidRequestError``."""
        if not destination.is_absolute():
            raise InvalidRequestError(
                f"path must be absolute (the daemon's directory is not yours); got {str(destination)!r}.",
                param="path",
            )
        try:
            return await self.appending.log.backup(destination)
        except BackupError as error:
            raise InvalidRequestError(f"path: {error}", param="path", code=error.code) from None

    async def _submit(
        self,
        request: JobRequest,
        *,
        actor: str,
        may_name_paths: bool,
        once: Once | None,
        retry_of: Job | None = None,
        resume_from: str | None = None,
        job_id: str | None = None,
    ) -> Job:
        request, template = await self._completed(request)
        await self.check_room()
        refuse_engine(request.kind, self.registry, actor=actor)
        prepared = await self._prepared(
            request,
            may_name_paths=may_name_paths,
            must_fit=True,
            retry_of=retry_of,
            resume_from=resume_from,
        )
        fact = prepared.fact
        fact = replace(fact, template=retry_of.template if retry_of is not None else template)
        job_id = self.new_id("job-") if job_id is None else job_id
        appended = await self.appending.execute(
            lambda world: decisions.submit(
                world, job_id, fact, actor=actor, advice=foretelling.advice(prepared)
            ),
            subject=f"job/{job_id}",
            actor=actor,
            once=once,
        )
        return await self.queries.job(appended.subject.removeprefix("job/"))

    async def _prepared(
        self,
        request: JobRequest,
        *,
        may_name_paths: bool,
        must_fit: bool,
        retry_of: Job | None = None,
        resume_from: str | None = None,
    ) -> Prepared:
        limits = {
            "max_requests": self.batch_limits.max_requests,
            "max_bytes": self.batch_limits.max_bytes,
        }
        request = batches.completed(request, **limits)
        host = await self.host()
        world = await self.appending.board.world()
        datasets = dict(world.datasets)  # of this moment, for the thread
        files = Known(dict(world.files), now=self.queries.now())
        allowed = self.paths.of(may_name_paths=may_name_paths)
        named = [each for each in request.params.values() if isinstance(each, str)]
        kept = await checkpoint_names.kept(self.appending.log, world, named)
        names = Names(models=dict(world.models), aliases=dict(world.aliases), checkpoints=kept, paths=allowed)

        def work() -> Prepared:
            prepared = prepare(
                request,
                self.registry,
                host,
                paths=allowed,
                secrets=self.secrets.store,
                datasets=datasets,
                files=files,
                names=names,
                engines=self.engine_defaults,
                default_max_attempts=self.default_max_attempts,
                retry_of=retry_of,
                resume_from=resume_from,
            )
            if prepared.kind.name == batches.KIND and not may_name_paths:
                batches.require_within(prepared.params, **limits)
            if must_fit:
                require_fit(prepared)
            return prepared

        return await anyio.to_thread.run_sync(work)

    async def _completed(self, request: JobRequest) -> tuple[JobRequest, str | None]:
        """The request with what its template says, and which version of which template that was."""
        if request.template is None:
            return request, None
        template = await self.queries.templates.template(*templates.reference(request.template))
        return templates.completed(request, template), f"{template.name}@{template.version}"
