"""A daemon's parts, wired to each other: which exist, and who is given which."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from finetuned.access.outbound import OutboundGuard
from finetuned.access.path_policy import PathPolicy
from finetuned.attempt_log import DaemonAttemptLog, read_secrets
from finetuned.attempt_orders import AttemptSettings
from finetuned.attempts.launcher import LocalExecutor, withheld_secrets
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.warm import WarmStarts
from finetuned.attempts.warm_process import WarmSettings
from finetuned.board import Board
from finetuned.commands.appending import Appending
from finetuned.commands.batches import BatchLimits
from finetuned.commands.datasets import DatasetCommands
from finetuned.commands.door import Commands, new_id
from finetuned.commands.files import FileCommands
from finetuned.commands.secrets import SecretCommands
from finetuned.commands.storage import StorageCommands
from finetuned.commands.webhooks import WebhookCommands
from finetuned.config import Config
from finetuned.datasets.store import DatasetStore
from finetuned.device_gate import DeviceGate
from finetuned.domain import webhook_decisions
from finetuned.domain.retention import Policy
from finetuned.domain.situation import Hold
from finetuned.engines.defaults import EngineDefaults
from finetuned.engines.gate import EngineGate
from finetuned.engines.keeper import EngineKeeper
from finetuned.files.store import FileStore
from finetuned.machine.host import HostFacts
from finetuned.patience import FATAL
from finetuned.queries.door import Queries
from finetuned.queries.observation import Observation, processes_of
from finetuned.resource_watch import ResourceWatch
from finetuned.scheduler import Scheduler
from finetuned.secrets.store import SecretStore
from finetuned.storage.intake import Limits
from finetuned.storage.inventory import Inventory
from finetuned.storage.keeper import Keeper
from finetuned.storage.room import RoomGate
from finetuned.store import Log
from finetuned.telemetry import gpus, marks
from finetuned.telemetry.gpus import GpuReader
from finetuned.telemetry.host import HostReader
from finetuned.telemetry.telemetry import Telemetry
from finetuned.webhooks.deliveries import Deliveries
from finetuned.webhooks.keys import WebhookKeys
from finetuned.webhooks.sender import Sender, lookup_apart
from finetuned_sdk import Registry

log = logging.getLogger(__name__)

JOBS_DIR = "jobs"
CACHE_DIR = "cache"  # of workers; nothing is lost with it
DATASETS_DIR = "datasets"
FILES_DIR = "files"
WEBHOOKS_DIR = "webhooks"  # their secrets, apart from those that jobs may name


@dataclass(frozen=True, slots=True)
class Parts:
    """A daemon's parts, wired to each other and not yet running."""

    log: Log
    board: Board
    registry: Registry
    scheduler: Scheduler
    supervision: Supervision
    commands: Commands
    queries: Queries
    telemetry: Telemetry
    room: RoomGate
    keeper: Keeper
    device_gate: DeviceGate
    resource_watch: ResourceWatch
    executor: LocalExecutor
    engines: EngineKeeper
    gate: EngineGate
    deliveries: Deliveries


async def assemble(events: Log, registry: Registry, config: Config) -> Parts:
    """Wire a daemon's parts over an open log."""
    jobs_dir = config.state_dir / JOBS_DIR
    board = Board(events)
    settings = AttemptSettings(
        allow_remote_code=config.trust_remote_code,
        grace_s=config.cancel_grace_s,
        output_file_bytes=config.output_file_bytes,
        output_files=config.output_files,
        cache_dir=config.state_dir / CACHE_DIR,
        warm_start=config.warm_start,
        interpreters={name: str(each.python) for name, each in config.engines.items() if each.python},
    )
    port = DaemonAttemptLog(events, board, registry, settings, jobs_dir)
    inventory = Inventory(
        events,
        config.state_dir / CACHE_DIR,
        jobs_dir,
        config.state_dir / DATASETS_DIR,
        config.state_dir / FILES_DIR,
    )
    facts = HostFacts(board, config.state_dir, config.trust_remote_code, config.min_free_disk_bytes)
    scheduler = Scheduler(
        events,
        board,
        holds=lambda: {**device_gate.holds(), **holds_of(supervision.reserved)},
        closed=lambda: next(filter(None, (gate() for gate in gates)), None),
        min_run_s=config.preemption_min_run_s,
        room=facts.room,
    )
    secrets = _secret_store(config)
    executor = LocalExecutor(partial(read_secrets, secrets), _warm_starts(config))
    supervision = Supervision(jobs_dir, port, executor, released=scheduler.look, fatal=FATAL)
    attempts = processes_of(board, strays=lambda: {stray.pid: stray.key for stray in supervision.strays})
    telemetry = Telemetry(
        HostReader(config.state_dir),
        # Slots of the CPU mean that GPUs are left alone.
        GpuReader(gpus.load if config.cpu_slots is None else lambda: None),
        attempts,
    )
    device_gate = DeviceGate(
        events,
        board,
        telemetry.gpus_now,
        attempts,
        marked=partial(marks.read, jobs_dir),
        changed=scheduler.look,
    )
    resource_watch = ResourceWatch(
        board, telemetry, port, bundle=supervision.bundle, notice=supervision.notice
    )
    deliveries = await _deliveries(events, board, config)
    queries = Queries(
        events,
        board,
        registry,
        jobs_dir,
        Observation(events, board, telemetry, taken=lambda: inventory.taken, jobs_dir=jobs_dir),
        data_roots=config.data_roots,
        situation=scheduler.situation,
        under_way=deliveries.endpoint,
    )
    datasets = dataset_store(config)
    contents = FileStore(config.state_dir / FILES_DIR, datasets.limits)
    for store in (datasets, contents):
        await anyio.to_thread.run_sync(store.prepare)  # before anybody may upload
    await anyio.to_thread.run_sync(secrets.sweep)
    paths = PathPolicy(roots=config.data_roots, hosts=frozenset(config.outbound_allow))
    appending = Appending(events, board, queries.now)
    commands = Commands(
        appending,
        queries,
        registry,
        host=facts.host,
        check_room=facts.check_room,
        secrets=SecretCommands(events, secrets),
        datasets=DatasetCommands(appending, datasets, paths),
        files=FileCommands(appending, contents, jobs_dir, new_id),
        webhooks=WebhookCommands(appending, deliveries.keys, deliveries.sender, new_id),
        paths=paths,
        default_max_attempts=config.max_attempts,
        batch_limits=BatchLimits(config.batch_max_requests, config.batch_max_bytes),
        engine_defaults=EngineDefaults(
            engine=config.default_engine,
            options={name: each.options for name, each in config.engines.items()},
            elsewhere=frozenset(name for name, each in config.engines.items() if each.python),
        ),
    )
    engines = EngineKeeper(
        events, board, commands, jobs_dir, idle_s=config.engine_idle_s, situation=scheduler.situation
    )
    gate = EngineGate(
        events,
        board,
        registry,
        commands.engine_defaults,
        engines,
        wait_s=config.engine_wait_s,
        most=config.engine_queue,
        paths=paths,
    )
    commands.workers.online = engines.online
    queries.observation.engine_status = gate.status
    commands.drain.changed = scheduler.look
    room = RoomGate(
        config.state_dir,
        config.min_free_disk_bytes,
        port,
        is_short=lambda: events.is_short,
        replenish=lambda: events.execute(lambda _world: []),
        changed=scheduler.look,
    )
    policy = Policy(config.keep_jobs_days, config.keep_jobs_bytes)
    keeper = Keeper(board, inventory, StorageCommands(appending), policy)
    # why nothing is started
    gates: tuple[Callable[[], str | None], ...] = (lambda: commands.drain.closed, lambda: room.closed)
    return Parts(
        events,
        board,
        registry,
        scheduler,
        supervision,
        commands,
        queries,
        telemetry,
        room,
        keeper,
        device_gate,
        resource_watch,
        executor,
        engines,
        gate,
        deliveries,
    )


def holds_of(reserved: Iterable[str]) -> dict[str, Hold]:
    """Devices that attempts unknown to the log hold."""
    return {device: Hold("an attempt that the log does not know") for device in reserved}


def dataset_store(config: Config) -> DatasetStore:
    """Where uploaded datasets are kept, within the configuration's limits."""
    limits = Limits(
        max_bytes=config.max_upload_bytes,
        min_free_bytes=config.min_free_disk_bytes,
        stall_s=config.upload_stall_s,
    )
    return DatasetStore(config.state_dir / DATASETS_DIR, limits)


async def _deliveries(events: Log, board: Board, config: Config) -> Deliveries:
    """Deliveries to webhooks, with what a daemon that was killed has left of their secrets removed."""
    keys = WebhookKeys(SecretStore(config.state_dir / WEBHOOKS_DIR), time.time)
    await anyio.to_thread.run_sync(keys.sweep, frozenset((await board.world()).webhooks))
    guard = OutboundGuard(config.outbound_allow, lookup=lookup_apart(webhook_decisions.MOST))
    return Deliveries(events, board, keys, Sender(guard))


def _secret_store(config: Config) -> SecretStore:
    """The store, and what systemd brought; says which secrets of the environment jobs will not see."""
    for name in withheld_secrets(os.environ):
        log.warning(
            "%s in the daemon's environment is not handed on to jobs; store it with `finetune secrets set` and name"
            " it in the jobs that need it",
            name,
        )
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    return SecretStore(config.secrets_dir, Path(credentials) if credentials else None)


def _warm_starts(config: Config) -> WarmStarts | None:
    if not config.warm_start:
        return None
    # Where jobs are never given a GPU, what is imported for them sees none either.
    hidden = {} if config.cpu_slots is None else {"CUDA_VISIBLE_DEVICES": ""}
    return WarmStarts(
        WarmSettings(idle_s=config.warm_idle_s, memory=config.warm_memory_bytes, environment=hidden)
    )
