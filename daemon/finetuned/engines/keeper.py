"""Keeps the engines: starts those that are asked for, ends those that nobody asks, tells who asks where theirs is.

Level-triggered as the scheduler is: what to do follows from the present state, so a restart loses nothing. Engines are
jobs, submitted and ended through the same door as any other; ``finetuned.domain.engines`` decides.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import anyio
import anyio.to_thread

from finetuned.board import Board
from finetuned.commands.door import Commands
from finetuned.domain import engines, places, queue
from finetuned.domain.engines import ACTOR, Contender, Demand, Failed, Wanted
from finetuned.domain.errors import FinetunedError, StorageFullError, UnavailableError
from finetuned.domain.job import Job
from finetuned.domain.situation import Situation
from finetuned.domain.world import World
from finetuned.job_request import JobRequest
from finetuned.patience import patiently
from finetuned.store import Log
from finetuned_sdk.bundle import Bundle, write_json
from finetuned_sdk.engines.engine import Adapter
from finetuned_sdk.engines.host import SOCKET_NAME
from finetuned_sdk.engines.state import EngineState

log = logging.getLogger(__name__)

AGAIN_S = 1.0  # until an engine is looked at again whose time is over
RETRY_S = 5.0  # until an engine that could not be submitted is tried again
MAX_ATTEMPTS = 3  # runs of an engine that may crash before those who ask are told that there is none


@dataclass(slots=True)
class _Asked:
    """Requests under way that nobody logs."""

    wanted: Wanted
    count: int = 0
    newest: int = 0  # when the newest of them came, counted together with failures


@dataclass(slots=True, eq=False)
class EngineKeeper:
    """``idle_s``: seconds that an engine stays when nobody asks it. ``clock`` is monotonic seconds, ``now``
    microseconds as the log has them.

    ``situation`` is what the scheduler knows beside the log.
    """

    log: Log
    board: Board
    commands: Commands
    jobs_dir: Path
    idle_s: float
    situation: Callable[[], Situation]
    clock: Callable[[], float] = anyio.current_time
    now: Callable[[], int] = lambda: time.time_ns() // 1000
    _online: dict[str, _Asked] = field(default_factory=dict)
    _failed: dict[str, Failed] = field(default_factory=dict)
    _unasked_since: dict[str, float] = field(
        default_factory=dict
    )  # engine job -> when nobody asked it any more
    _live: dict[str, str] = field(default_factory=dict)  # key -> engine job, as of the last look
    _told: dict[Path, EngineState] = field(default_factory=dict)
    _moments: Iterator[int] = field(default_factory=lambda: count(1))  # an order that the log does not have
    _failed_at: dict[str, int] = field(default_factory=dict)  # by key: which moment the failure was
    _contender: Contender | None = None  # who is next and lacks devices, as of the last look
    _retry_at: float | None = None  # when an engine that could not be submitted is tried again
    _waiting: anyio.CancelScope | None = None
    _again: bool = False

    async def run(self) -> None:
        """Keep the engines until cancelled."""
        while True:
            head, self._again = self.log.head, False
            await patiently("Keeping the engines", self.step)
            if self._again:  # somebody came after the step had looked
                continue
            with anyio.move_on_after(self._next_look_s()) as self._waiting:
                await self.log.wait(head)

    def look(self) -> None:
        """Look again: somebody asks of whom the log does not tell."""
        self._again = True
        if self._waiting is not None:
            self._waiting.cancel()

    @contextmanager
    def asking(self, wanted: Wanted) -> Iterator[int]:
        """Ask for an engine as long as the context lasts; when that began, for :meth:`failure`."""
        asked = self._online.setdefault(wanted.key, _Asked(wanted))
        asked.wanted = wanted
        asked.count += 1
        asked.newest = began = next(self._moments)
        if asked.count == 1 or wanted.key in self._failed:
            self.look()
        try:
            yield began
        finally:
            asked.count -= 1
            if not asked.count:
                self._online.pop(wanted.key, None)
                self.look()

    def failure(self, wanted: Wanted, began: int) -> str | None:
        """Why there will be no such engine for who began to ask then; ``None`` if there may be one."""
        failed = self._failed.get(wanted.key)
        return failed.reason if failed is not None and began < self._failed_at[wanted.key] else None

    async def serving(self, key: str) -> Path | None:
        """The socket of the engine of a key, if it answers."""
        world = await self.board.world()
        engine = engines.engine_of(key, world.live_jobs())
        return self.socket(engine) if engine is not None and engines.is_serving(engine) else None

    def socket(self, engine: Job) -> Path:
        """Where an engine listens, once it does."""
        assert engine.attempt is not None
        return self._bundle(engine.id, engine.attempt.number).work / SOCKET_NAME

    async def step(self) -> None:
        """Do what is to be done now."""
        self._retry_at = None
        world = await self.board.world()
        await self._note_ended(world)
        self._note_unasked(world)
        situation, slots = self.situation(), world.slots.values()
        contested = engines.is_contested(world.live_jobs(), slots, situation.in_backoff)
        self._contender = queue.contender(world.live_jobs(), slots, situation) if contested else None
        plan = engines.plan(world.live_jobs(), self._demand(), contested=contested, contender=self._contender)
        for engine, why in plan.stop:
            await self._end(engine, why)
        for wanted in plan.start:
            await self._start(wanted)
        await self._tell(await self.board.world())

    def online(self) -> Demand:
        """Who asks beside the jobs of the log."""
        return self._demand()

    def _demand(self) -> Demand:
        now = self.clock()
        return Demand(
            online={key: self._since(asked) for key, asked in self._online.items()},
            failed=self._failed,
            idle={job for job, since in self._unasked_since.items() if now - since >= self.idle_s},
        )

    def _since(self, asked: _Asked) -> Wanted:
        """What is asked for online, before or after the newest failure as it was asked."""
        is_new = asked.newest > self._failed_at.get(asked.wanted.key, 0)
        place = places.place(self.now(), asked.wanted.priority)  # who asks online has not waited yet
        return replace(asked.wanted, since=sys.maxsize if is_new else 0, place=place)

    def _note_failed(self, key: str, failed: Failed) -> None:
        self._failed[key] = failed
        self._failed_at[key] = next(self._moments)

    def _next_look_s(self) -> float:
        now = self.clock()
        # One whose time has run out since the last look, or that could not be ended then, is looked at before long.
        left = [since + self.idle_s - now for since in self._unasked_since.values()]
        ends = [each if each > 0 else AGAIN_S for each in left]
        if self._retry_at is not None:
            ends.append(self._retry_at - now)
        if self._contender is not None and self._online:
            ends.append((self._contender.place + places.POINT - self.now()) / 1_000_000)
        return min((end for end in ends if end > 0), default=float("inf"))

    def _note_unasked(self, world: World) -> None:
        asked = engines.demanded(world.live_jobs(), self._demand())
        now = self.clock()
        self._unasked_since = {
            engine.id: self._unasked_since.get(engine.id, now)
            for engine in engines.engines(world.live_jobs())
            if engine.serves not in asked
        }

    async def _note_ended(self, world: World) -> None:
        """Learn why engines have ended that lived at the last look."""
        live = {each.serves: each.id for each in engines.engines(world.live_jobs()) if each.serves}
        for key, job_id in self._live.items():
            if live.get(key) == job_id:
                continue
            ended = await self._ended(job_id)
            if ended is not None and ended.error is not None:
                self._note_failed(key, Failed(ended.updated_seq, ended.error["message"]))
        self._live = live

    async def _ended(self, job_id: str) -> Job | None:
        try:
            return await self.commands.queries.job(job_id)
        except FinetunedError:  # deleted meanwhile
            return None

    async def _start(self, wanted: Wanted) -> None:
        request = JobRequest(
            kind=wanted.kind,
            params=dict(wanted.params),
            priority=wanted.priority,
            name=f"engine of {wanted.model}"[:200],
            preemptible=True,
            max_attempts=MAX_ATTEMPTS,
        )
        try:
            engine = await self.commands.submit(request, actor=ACTOR, may_name_paths=True)
        except (StorageFullError, UnavailableError) as error:  # that passes, and who asks waits for it
            log.warning("The engine for %s has to wait: %s", wanted.model, error.message)
            self._retry_at = self.clock() + RETRY_S
            return
        except FinetunedError as error:
            log.warning("No engine for %s: %s", wanted.model, error.message)
            self._note_failed(wanted.key, Failed(self.log.head, error.message))
            return
        self._failed.pop(wanted.key, None)
        self._live[wanted.key] = engine.id

    async def _end(self, engine: Job, why: str) -> None:
        try:
            await self.commands.cancel(engine.id, actor=ACTOR, reason=why)
        except FinetunedError as error:  # it has ended by itself
            log.info("The engine %s was not ended: %s", engine.id, error.message)

    async def _tell(self, world: World) -> None:
        """Tell each job that asks an engine where it is."""
        told = {
            self._bundle(job.id, attempt.number).engine_path: self._state(job, world)
            for job in world.live_jobs()
            if job.engine is not None and (attempt := job.live_attempt) is not None
        }
        news = {path: state for path, state in told.items() if self._told.get(path) != state}
        for path, state in news.items():
            if not await anyio.to_thread.run_sync(_write, path, state):
                told.pop(path)  # its bundle is not there yet; the next event of the job comes when it is
        self._told = told

    def _state(self, job: Job, world: World) -> EngineState:
        assert job.engine is not None
        key, adapter = job.engine["key"], job.engine["adapter"]
        over = None if adapter is None else Adapter(**adapter)
        engine = engines.engine_of(key, world.live_jobs())
        if engine is not None and engines.is_serving(engine):
            return EngineState(state="ready", socket=str(self.socket(engine)), adapter=over)
        failed = self._failed.get(key)
        if engine is None and failed is not None and engines.has_failed(job.seq, failed):
            return EngineState(state="failed", reason=failed.reason, adapter=over)
        return EngineState(reason="it is not there yet", adapter=over)

    def _bundle(self, job_id: str, attempt: int) -> Bundle:
        return Bundle(self.jobs_dir / job_id / "attempts" / str(attempt))


def _write(path: Path, state: EngineState) -> bool:
    try:
        write_json(path, state.to_data())
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)
        return False
    return True
