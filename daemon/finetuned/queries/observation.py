"""What is looked at rather than recorded: the machine, live attempts, and what Prometheus is told. Queries of their own."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from finetuned.board import Board
from finetuned.domain import engines
from finetuned.domain.errors import UnavailableError
from finetuned.domain.job import Attempt, Job
from finetuned.domain.registers import Webhook
from finetuned.domain.world import Slot
from finetuned.storage.inventory import Taken
from finetuned.store import Log, queries
from finetuned.telemetry.holders import Usage
from finetuned.telemetry.requests import Latencies
from finetuned.telemetry.telemetry import Key, Snapshot, Telemetry, Trend
from finetuned_events import LogStatistics
from finetuned_sdk import heartbeat
from finetuned_sdk.bundle import Bundle
from finetuned_sdk.engines import EngineStatus


@dataclass(frozen=True, slots=True)
class Worker:
    """A live attempt, and what its processes use if they were looked at already.

    ``beat_s`` is how long ago its process last showed that it lives; ``gpu_total`` is the memory of GPUs, in bytes;
    ``engine`` says how busy an engine is that answers.
    """

    job: Job
    attempt: Attempt
    usage: Usage | None
    beat_s: float | None = None
    gpu_total: Mapping[str, int] = field(default_factory=dict)
    engine: EngineStatus | None = None


async def _no_status(_engine: Job) -> EngineStatus | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Everything that is counted, ``at`` one moment (microseconds since the epoch).

    ``ended`` counts ended jobs, deleted ones too, by state and kind; ``requests`` HTTP requests by route, method
    and status; ``latencies`` is by route and method.
    """

    at: int
    live: tuple[Job, ...]
    ended: Mapping[tuple[str, str], int]
    slots: tuple[Slot, ...]
    log: LogStatistics
    snapshot: Snapshot
    lag_s: float
    worst_lag_s: float
    requests: Mapping[tuple[str, str, int], int]
    latencies: Mapping[tuple[str, str], Latencies]
    in_progress: int
    webhooks: tuple[Webhook, ...] = ()


@dataclass(slots=True)
class Observation:
    """What can be observed at the moment."""

    log: Log
    board: Board
    telemetry: Telemetry
    taken: Callable[[], Taken | None] = lambda: None  # what takes the disk
    jobs_dir: Path | None = None  # where the attempts' heartbeats are
    engine_status: Callable[[Job], Awaitable[EngineStatus | None]] = _no_status
    _ended: tuple[int, Mapping[tuple[str, str], int]] | None = None

    async def system(self) -> Snapshot:
        """The newest look at the machine, some seconds old at most. Raises ``UnavailableError`` before the first."""
        try:
            return await self.telemetry.now()
        except TimeoutError:
            raise UnavailableError(
                "The machine could not be looked at yet; the daemon's log says why. Ask again in a moment."
            ) from None

    async def trend(self, *, seconds: int, points: int) -> Trend:
        """The machine over the last ``seconds``, in about ``points`` buckets at most."""
        return await self.telemetry.trend(seconds=seconds, points=points)

    async def workers(self) -> list[Worker]:
        """The live attempts, oldest job first."""
        world = await self.board.world()
        snapshot = await self.system()
        live = [
            (job, attempt)
            for job in sorted(world.live_jobs(), key=lambda job: job.seq)
            if (attempt := job.live_attempt) is not None
        ]
        beats = await anyio.to_thread.run_sync(self._beats, [(job.id, each.number) for job, each in live])
        totals = {gpu.id: gpu.memory_total for gpu in snapshot.gpus if gpu.memory_total}
        return [
            Worker(
                job,
                attempt,
                snapshot.usage.get((job.id, attempt.number)),
                beat_s,
                totals,
                await self.engine_status(job) if engines.is_serving(job) else None,
            )
            for (job, attempt), beat_s in zip(live, beats, strict=True)
        ]

    def _beats(self, attempts: Sequence[Key]) -> list[float | None]:
        """How long ago each attempt showed that it lives, in seconds. Reads a small file of each."""
        return [self._beat_s(*each) for each in attempts]

    def _beat_s(self, job: str, number: int) -> float | None:
        if self.jobs_dir is None:
            return None
        beat = heartbeat.read(Bundle(self.jobs_dir / job / "attempts" / str(number)).heartbeat_path)
        return None if beat is None else max(0.0, time.monotonic() - beat.beat_at)

    async def census(self) -> Census:
        """Everything that is counted."""
        world = await self.board.world()
        live, slots = tuple(world.live_jobs()), tuple(world.slots.values())
        ended = await self._count_ended(world.generation)
        recorder = self.telemetry.requests
        return Census(
            at=time.time_ns() // 1000,
            live=live,
            ended=ended,
            slots=slots,
            log=await self.log.statistics(),
            snapshot=await self.system(),
            lag_s=self.telemetry.lag.now_s,
            worst_lag_s=self.telemetry.lag.minute_s,
            # Copies: what is made of them is made in a thread.
            requests=dict(recorder.counts),
            latencies={
                key: Latencies(list(each.counts), each.sum_s) for key, each in recorder.latencies.items()
            },
            in_progress=recorder.in_progress,
            webhooks=tuple(world.webhooks.values()),
        )

    async def _count_ended(self, generation: int) -> Mapping[tuple[str, str], int]:
        """Ended jobs by state and kind; counted once for each generation of the world: none ends without a new one."""
        if self._ended is None or self._ended[0] != generation:
            rows = await self.log.fetch(queries()["count_ended_jobs"])
            self._ended = generation, {(state, kind): count for state, kind, count in rows}
        return self._ended[1]


def processes_of(
    board: Board, *, strays: Callable[[], Mapping[int, Key]] = dict
) -> Callable[[], Awaitable[Mapping[int, Key]]]:
    """How the telemetry learns which processes are attempts': by the pids of their runners, as the log has them.

    ``strays`` are attempts that the log does not know.
    """

    async def found() -> Mapping[int, Key]:
        world = await board.world()
        live = ((job, job.live_attempt) for job in world.live_jobs())
        known = {
            attempt.pid: (job.id, attempt.number)
            for job, attempt in live
            if attempt is not None and attempt.pid is not None
        }
        return {**strays(), **known}

    return found
