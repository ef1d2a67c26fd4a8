"""The daemon put together: the log, the doors, the scheduler and the supervision, under one task group."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from finetuned import __version__, draining, followers, plugins, watchdog
from finetuned.api.app import Doors, build
from finetuned.api.server import serve
from finetuned.assembly import JOBS_DIR, Parts, assemble
from finetuned.batch_expiry import BatchExpiry
from finetuned.config import Config
from finetuned.domain import decisions
from finetuned.domain.errors import StartError
from finetuned.files.keeper import FileKeeper
from finetuned.machine import devices
from finetuned.notify import notify, watchdog_period
from finetuned.patience import patiently
from finetuned.stopping import Stop
from finetuned.store import Log, open_log
from finetuned.tracing import traces as tracing
from finetuned.tracing.traces import Traces
from finetuned_events import LogError, LogLockedError
from finetuned_sdk.bundle import sync_directory

log = logging.getLogger(__name__)

LOG_FILE = "events.sqlite"
SWEEP_S = 60.0  # between two looks for what an archiving has left; it costs nothing when there is nothing


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
            engines=parts.gate,
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
    tasks.start_soon(followers.follow, parts.log, followers.ContentRemover(parts.commands.files))
    tasks.start_soon(FileKeeper(parts.commands.files).run)
    await parts.room.look()  # before anything is started
    tasks.start_soon(parts.room.run)
    tasks.start_soon(parts.keeper.run)
    tasks.start_soon(parts.device_gate.run)
    tasks.start_soon(parts.resource_watch.run)
    tasks.start_soon(parts.scheduler.run)
    await tasks.start(parts.gate.run)
    tasks.start_soon(parts.engines.run)
    tasks.start_soon(BatchExpiry(parts.board, parts.commands, parts.queries.now).run)
    tasks.start_soon(parts.deliveries.run)


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
