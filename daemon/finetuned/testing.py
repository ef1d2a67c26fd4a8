"""A daemon that is served but runs nothing: for tests of doors and clients, and for benchmarks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from finetuned.access.outbound import OutboundGuard
from finetuned.access.path_policy import PathPolicy
from finetuned.api.app import Doors, build
from finetuned.api.doors import FEED
from finetuned.api.feed import Feed
from finetuned.api.server import Addresses, serve
from finetuned.board import Board
from finetuned.commands.appending import Appending
from finetuned.commands.datasets import DatasetCommands
from finetuned.commands.door import Commands, new_id
from finetuned.commands.files import FileCommands
from finetuned.commands.secrets import SecretCommands
from finetuned.commands.webhooks import WebhookCommands
from finetuned.config import Config
from finetuned.datasets.store import DatasetStore
from finetuned.domain import attempt_decisions, decisions, facts, verdicts
from finetuned.domain.engines import Wanted
from finetuned.domain.errors import StorageFullError
from finetuned.domain.streams import job_event
from finetuned.domain.world import World
from finetuned.engines.defaults import EngineDefaults
from finetuned.engines.gate import EngineGate
from finetuned.files.store import FileStore
from finetuned.queries.door import Queries
from finetuned.queries.observation import Observation, processes_of
from finetuned.secrets.store import SecretStore
from finetuned.storage.intake import Limits
from finetuned.store import Log, open_log
from finetuned.telemetry.gpus import GpuReader, Nvml
from finetuned.telemetry.host import HostReader
from finetuned.telemetry.telemetry import Telemetry
from finetuned.tracing.traces import Traces
from finetuned.webhooks.deliveries import Deliveries
from finetuned.webhooks.endpoint import Clock
from finetuned.webhooks.keys import WebhookKeys
from finetuned.webhooks.sender import Sender
from finetuned_events import Event, NewEvent
from finetuned_sdk import Host, JobKind, Registry
from finetuned_sdk.engines.host import SOCKET_NAME, listening
from finetuned_sdk.fake_engine import FAKE_ENGINE, FakeEngine, FakeEngineParams

CPU = {"id": "cpu:0", "kind": "cpu", "name": "a core", "memory_bytes": 1 << 30}


class FakeParams(BaseModel):
    """The parameters of the kind ``fake``."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(default=1, ge=1, description="how many steps it pretends to do")


@dataclass
class House:
    """A served daemon without a scheduler, and what can be done behind its back.

    ``ready`` and ``disk_is_full`` are what it is to say of itself.
    """

    log: Log
    commands: Commands
    queries: Queries
    feed: Feed
    config: Config
    addresses: Addresses
    jobs_dir: Path
    telemetry: Telemetry
    engines: StandingEngine
    deliveries: Deliveries
    ready: bool = True
    disk_is_full: bool = False
    jobs: int = 0

    @property
    def url(self) -> str:
        """Where the TCP door is."""
        assert self.addresses.tcp is not None
        return "http://{}:{}".format(*self.addresses.tcp)

    async def accept_job(self) -> str:
        """A queued job that came in by no door; its id."""
        self.jobs += 1
        job_id = f"job-{self.jobs}"
        fact = facts.JobSubmitted(
            kind="fake", name=None, params={}, priority=0, metadata={}, devices=1, validates=False,
            max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None,
        )  # fmt: skip
        await self.log.execute(lambda world: decisions.submit(world, job_id, fact, actor="test"))
        return job_id

    async def start_attempt(self) -> None:
        """Start whatever may start, every backoff being over; no process comes of it."""

        def schedule(world: World) -> list[NewEvent]:
            elapsed = frozenset((job.id, len(job.attempts)) for job in world.live_jobs())
            return list(decisions.schedule(world, elapsed=elapsed))

        await self.log.execute(schedule)

    async def report(self, job_id: str, *reported: facts.Fact) -> tuple[Event, ...]:
        """Append facts to a job's stream in one commit, as its worker's."""
        return await self.log.append([job_event(job_id, fact, actor="attempt:1") for fact in reported])

    async def progress(self, job_id: str, *steps: int) -> tuple[Event, ...]:
        """Append one ``job.progress`` a step, in one commit."""
        return await self.report(job_id, *(facts.JobProgress({"current_step": step}) for step in steps))

    async def end_attempt(self, job_id: str, *, error: bool = False) -> None:
        """Let the live attempt end: with a result, or crashed."""
        job = await self.queries.job(job_id)
        assert job.attempt is not None
        number = job.attempt.number
        if not error:
            await self.report(job_id, facts.AttemptResult(attempt=number, values={"train_loss": 0.5}))
        end = verdicts.End(
            exit_code=1 if error else 0, signal=None, lost=None, problem=None, oom_killed=False, usage={}
        )
        await self.log.execute(
            lambda world: attempt_decisions.ended(
                world, job_id, number, end, attempt_decisions.Prospect(resume_from=None, jitter=0.0)
            )
        )


@dataclass(slots=True)
class StandingEngine:
    """One fake engine that is always there, whatever model is asked for, in this very process.

    ``away`` lets it be not there, ``failed`` says why there will be none. ``asked`` are the engines asked for now.
    """

    path: Path
    engine: FakeEngine = field(default_factory=lambda: FakeEngine(FakeEngineParams(model="any")))
    away: bool = False
    failed: str | None = None
    asked: list[Wanted] = field(default_factory=list)

    @contextmanager
    def asking(self, wanted: Wanted) -> Iterator[int]:
        """Note it."""
        self.asked.append(wanted)
        try:
            yield 0
        finally:
            self.asked.remove(wanted)

    def failure(self, wanted: Wanted, began: int) -> str | None:  # noqa: ARG002 - the signature is the keeper's
        """Why there will be none."""
        return self.failed

    async def serving(self, key: str) -> Path | None:  # noqa: ARG002 - the signature is the keeper's
        """Where it listens."""
        return None if self.away or self.failed else self.path


@asynccontextmanager
async def serve_house(
    state_dir: Path,
    *,
    nvml: Nvml | None = None,
    traces: Traces | None = None,
    guard: OutboundGuard | None = None,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[House]:
    """Serve a daemon with one device and the job kind ``fake``. ``settings`` are the configuration's keys.

    ``nvml`` is asked for its GPUs, ``traces`` says what is traced. Webhooks are called as ``guard`` lets them, and
    tried again by ``clock``.
    """
    config = Config(**{"state_dir": state_dir, "listen": "127.0.0.1:0", **settings})
    registry = Registry()
    registry.job_kind(FAKE_ENGINE)
    registry.job_kind(JobKind(name="fake", summary="Does nothing.", params=FakeParams, entry="fake:run"))
    jobs_dir = state_dir / "jobs"
    traces = traces or Traces()
    async with open_log(state_dir / "events.sqlite", traces.log) as log:
        board = Board(log)
        telemetry = Telemetry(HostReader(state_dir), GpuReader(lambda: nvml), processes_of(board))
        observation = Observation(log, board, telemetry, jobs_dir=jobs_dir)
        keys = WebhookKeys(SecretStore(state_dir / "webhooks"), time.time)
        clock = clock or Clock()
        sender = Sender(guard or OutboundGuard(config.outbound_allow), clock.wall)
        deliveries = Deliveries(log, board, keys, sender, clock, jitter=lambda: 0.0)
        queries = Queries(
            log,
            board,
            registry,
            jobs_dir,
            observation,
            data_roots=config.data_roots,
            under_way=deliveries.endpoint,
        )

        async def check_room() -> None:
            if house.disk_is_full:
                raise StorageFullError("The disk is full; free some space.")

        async def host() -> Host:
            world = await board.world()
            return Host(models={model.name: Path(model.path) for model in world.models.values()})

        paths = PathPolicy(roots=config.data_roots, hosts=frozenset(config.outbound_allow))
        secrets = SecretStore(config.secrets_dir)
        limits = Limits(max_bytes=config.max_upload_bytes, min_free_bytes=0, stall_s=config.upload_stall_s)
        store = DatasetStore(state_dir / "datasets", limits)
        contents = FileStore(state_dir / "files", limits)
        await anyio.to_thread.run_sync(store.prepare)
        await anyio.to_thread.run_sync(contents.prepare)
        await anyio.to_thread.run_sync(secrets.sweep)
        appending = Appending(log, board, queries.now)
        commands = Commands(
            appending,
            queries,
            registry,
            host=host,
            check_room=check_room,
            secrets=SecretCommands(log, secrets),
            datasets=DatasetCommands(appending, store, paths),
            files=FileCommands(appending, contents, jobs_dir, new_id),
            webhooks=WebhookCommands(appending, keys, sender, new_id),
            paths=paths,
            engine_defaults=EngineDefaults(engine=FAKE_ENGINE.name),
        )
        engines = StandingEngine(state_dir / SOCKET_NAME)
        gate = EngineGate(
            log,
            board,
            registry,
            commands.engine_defaults,
            engines,
            wait_s=config.engine_wait_s,
            most=config.engine_queue,
            paths=paths,
        )
        queries.observation.engine_status = gate.status
        app = build(
            Doors(commands, queries, gate, config, time.monotonic(), lambda: house.ready, traces.middlewares)
        )
        await log.execute(lambda world: decisions.devices_detected(world, [CPU]))
        await anyio.Path(state_dir / SOCKET_NAME).unlink(missing_ok=True)  # of the house before
        async with (
            serve(app, config) as addresses,
            listening(state_dir / SOCKET_NAME, engines.engine),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(telemetry.run)
            tasks.start_soon(deliveries.run)
            await tasks.start(gate.run)
            house = House(
                log, commands, queries, app[FEED], config, addresses, jobs_dir, telemetry, engines, deliveries
            )
            yield house
            tasks.cancel_scope.cancel()
