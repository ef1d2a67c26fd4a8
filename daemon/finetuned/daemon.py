"""The daemon put together: the log, the doors, the scheduler and the supervision, under one task group."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from finetuned import __version__, draining, followers, plugins, watchdog
from finetuned.access.path_policy import PathPolicy
from finetuned.api.app import Doors, build
from finetuned.api.server import serve
from finetuned.attempt_log import DaemonAttemptLog, read_secrets
from finetuned.attempt_orders import AttemptSettings
from finetuned.attempts.launcher import LocalExecutor, withheld_secrets
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.warm import WarmStarts
from finetuned.attempts.warm_process import WarmSettings
from finetuned.board import Board
from finetuned.commands.appending import Appending
from finetuned.commands.datasets import DatasetCommands
from finetuned.commands.door import Commands
from finetuned.commands.secrets import SecretCommands
from finetuned.commands.storage import StorageCommands
from finetuned.config import Config
from finetuned.datasets.store import DatasetStore, Limits
from finetuned.device_gate import DeviceGate
from finetuned.domain import decisions, queue
from finetuned.domain.errors import StartError
from finetuned.domain.retention import Policy
from finetuned.machine import devices
from finetuned.machine.host import HostFacts
from finetuned.notify import notify, watchdog_period
from finetuned.patience import FATAL, patiently
from finetuned.queries.door import Queries
from finetuned.queries.observation import Observation, processes_of
from finetuned.resource_watch import ResourceWatch
from finetuned.scheduler import Scheduler
from finetuned.secrets.store import SecretStore
from finetuned.stopping import Stop
from finetuned.storage.inventory import Inventory
from finetuned.storage.keeper import Keeper
from finetuned.storage.room import RoomGate
from finetuned.store import Log, open_log
from finetuned.telemetry import gpus, marks
from finetuned.telemetry.gpus import GpuReader
from finetuned.telemetry.host import HostReader
from finetuned.telemetry.telemetry import Telemetry
from finetuned.tracing import traces as tracing
from finetuned.tracing.traces import Traces
from finetuned_events import LogError, LogLockedError
from finetuned_sdk import Registry
from finetuned_sdk.bundle import sync_directory

log = logging.getLogger(__name__)

LOG_FILE = "events.sqlite"
JOBS_DIR = "jobs"
CACHE_DIR = "cache"  # of workers; nothing is lost with it
DATASETS_DIR = "datasets"
SWEEP_S = 60.0  # between two looks for what an archiving has left; it costs nothing when there is nothing


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


async def run(config: Config, *, ephemeral_parent: int | None = None) -> int:
    """Run a daemon until it is told to stop; its exit status.

    An ephemeral one also stops when the process ``ephemeral_parent`` is gone, and takes its attempts along.

    Raises ``StartError`` if it cannot start here.
    """
    started = time.monotonic()
    prepare(config.state_dir)
    raise_descriptor_limit()
    registry, _reports = plugins.load()
    path = config.state_dir / LOG_FILE
    budget_s = watchdog.start_budget(path.stat().st_size if path.exists() else 0)
    async with (
        tracing.opened(config) as traces,
        watchdog.starting(say, budget_s=budget_s) as has_started,
        _opened(path, traces, config.disk_reserve_bytes) as events,
    ):
        parts = await assemble(events, registry, config)
        ready = anyio.Event()
        doors = Doors(
            commands=parts.commands,
            queries=parts.queries,
            config=config,
            started=started,
            ready=ready.is_set,
            middlewares=traces.middlewares,
        )
        async with anyio.create_task_group() as tasks:
            async with serve(build(doors), config) as addresses:
                await _start(tasks, parts, config)
                # Before anybody is told that it is ready: who knows that may stop it at once.
                with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    ready.set()
                    log.info(
                        "Ready after %.2f s: socket %s, TCP %s",
                        time.monotonic() - started,
                        addresses.socket,
                        "{}:{}".format(*addresses.tcp) if addresses.tcp else "off",
                    )
                    collect_garbage_again()
                    has_started.set()
                    notify("READY=1")
                    tasks.start_soon(parts.telemetry.run)
                    tasks.start_soon(traces.follow, parts.log, parts.queries)
                    if "NOTIFY_SOCKET" in os.environ:
                        tasks.start_soon(_watchdog(parts).run)
                    stop = Stop(parts.commands.drain, say=say, drain_timeout_s=config.drain_timeout_s)
                    await stop.wait(signals, parent=ephemeral_parent)
                notify("STOPPING=1")
            if ephemeral_parent is not None:
                await parts.supervision.kill_all()
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(parts.executor.close)
        try:
            await events.execute(lambda _world: decisions.daemon_stopped(), necessary=True)
        except LogError as error:  # a full disk: the end is not recorded, as after a kill
            log.warning("The end could not be recorded: %s", error)
        drained = parts.commands.drain.done.is_set()
        return draining.EXIT_STATUS if drained and "NOTIFY_SOCKET" in os.environ else 0


def prepare(state_dir: Path) -> None:
    """Make the state directory, for its owner and its group only. Raises ``StartError`` if that cannot be."""
    try:
        state_dir.mkdir(
            mode=0o750, parents=True, exist_ok=True
        )  # a mode is not for parents: each gets its own
        (state_dir / JOBS_DIR).mkdir(mode=0o750, exist_ok=True)
        sync_directory(state_dir)
    except OSError as error:
        raise StartError(
            f"The state directory {state_dir} cannot be made ({error.strerror}); set FINETUNED_STATE_DIR to one that can."
        ) from None
    _sync_names(state_dir)


def _sync_names(state_dir: Path) -> None:
    """Make the names that lead to the state last: all below it would go with them at a loss of power."""
    for directory in state_dir.parents:
        # One that we may not read, or a file system that cannot: somebody else made what is in it.
        with suppress(OSError):
            sync_directory(directory)


def collect_garbage_again() -> None:
    """End the pause that the start took from collecting: what it made lives as long as the daemon, mostly.

    From here on cycles are looked for less often than Python would, and never among what the start made.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: each client of a feed holds one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
    )
    port = DaemonAttemptLog(events, board, registry, settings, jobs_dir)
    inventory = Inventory(events, config.state_dir / CACHE_DIR, jobs_dir, config.state_dir / DATASETS_DIR)
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
    queries = Queries(
        events,
        board,
        registry,
        jobs_dir,
        Observation(events, board, telemetry, taken=lambda: inventory.taken),
        data_roots=config.data_roots,
        situation=scheduler.situation,
    )
    datasets = dataset_store(config)
    await anyio.to_thread.run_sync(datasets.prepare)  # before anybody may upload
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
        paths=paths,
        default_max_attempts=config.max_attempts,
    )
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
    )


def holds_of(reserved: Iterable[str]) -> dict[str, queue.Hold]:
    """Devices that attempts unknown to the log hold."""
    return {device: queue.Hold("an attempt that the log does not know") for device in reserved}


def dataset_store(config: Config) -> DatasetStore:
    """Where uploaded datasets are kept, within the configuration's limits."""
    limits = Limits(
        max_bytes=config.max_upload_bytes,
        min_free_bytes=config.min_free_disk_bytes,
        stall_s=config.upload_stall_s,
    )
    return DatasetStore(config.state_dir / DATASETS_DIR, limits)


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


#: what will be said again anyway, and must not hold up the event loop
say = partial(notify, patience_s=0)


def _watchdog(parts: Parts) -> watchdog.Watchdog:
    async def status() -> str:
        figures = await parts.log.statistics()
        return watchdog.status_of(await parts.board.world(), figures.head, wal_bytes=figures.wal_bytes)

    return watchdog.Watchdog(
        # Nothing is appended, but it waits in the queue and is answered by the thread that commits.
        ask_writer=lambda: parts.log.execute(lambda _world: []),
        status=status,
        send=say,
        period_s=watchdog_period() or watchdog.UNWATCHED_PERIOD_S,
    )


async def _start(tasks: anyio.abc.TaskGroup, parts: Parts, config: Config) -> None:
    found = devices.detect(cpu_slots=config.cpu_slots, nvml=devices.load_nvml())

    async def record_start() -> None:
        await parts.log.execute(
            lambda world: [
                *decisions.daemon_started(__version__, os.getpid()),
                *decisions.devices_detected(world, [asdict(device) for device in found]),
            ],
            necessary=True,
        )

    await patiently("The start", record_start)
    head = parts.log.head
    await tasks.start(parts.supervision.run)
    tasks.start_soon(lambda: followers.dispatch(parts.log, parts.supervision, after=head))
    tasks.start_soon(_sweep, parts.log)
    tasks.start_soon(followers.follow, parts.log, followers.FileRemover(config.state_dir / JOBS_DIR))
    tasks.start_soon(followers.follow, parts.log, followers.DatasetRemover(parts.commands.datasets))
    await parts.room.look()  # before anything is started
    tasks.start_soon(parts.room.run)
    tasks.start_soon(parts.keeper.run)
    tasks.start_soon(parts.device_gate.run)
    tasks.start_soon(parts.resource_watch.run)
    tasks.start_soon(parts.scheduler.run)


async def _sweep(events: Log) -> None:
    """Delete what archivings that were killed or found no room have left of their events in the log."""
    while True:
        await patiently("The end of an archiving", events.sweep)
        await anyio.sleep(SWEEP_S)


@asynccontextmanager
async def _opened(path: Path, traces: Traces, reserve: int) -> AsyncIterator[Log]:
    async with AsyncExitStack() as stack:
        try:
            events = await stack.enter_async_context(open_log(path, traces.log, reserve=reserve))
        except LogLockedError:
            raise StartError(
                f"Another daemon runs on {path.parent}; stop it, or give this one a state directory of its own"
                " (FINETUNED_STATE_DIR)."
            ) from None
        except (LogError, sqlite3.Error, OSError) as error:
            raise StartError(
                f"The log {path} cannot be opened: {str(error).rstrip('.')}. Free or mend what it names, restore a"
                " backup, or set FINETUNED_STATE_DIR to another directory."
            ) from None
        if events.read_only is not None:
            raise StartError(
                f"{events.read_only} Upgrade finetuned, or set FINETUNED_STATE_DIR to another directory."
            )
        yield events
