"""The real application on a real Unix socket and TCP port over a real log; nothing runs the jobs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from pydantic import BaseModel, ConfigDict, Field

from finetuned import config
from finetuned.api.app import Doors, build
from finetuned.api.doors import FEED
from finetuned.api.feed import Feed
from finetuned.api.server import Addresses, serve
from finetuned.board import Board
from finetuned.commands import Commands
from finetuned.domain import decisions, facts
from finetuned.domain.errors import StorageFullError
from finetuned.queries import Queries
from finetuned.store import Log, open_log
from finetuned_sdk import Host, JobKind, Registry

CPU = {"id": "cpu:0", "kind": "cpu", "name": "a core", "memory_bytes": 1 << 30}


class FakeParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    steps: int = Field(default=1, ge=1, description="how many steps it pretends to do")


@dataclass
class House:
    """A served daemon without scheduler, and what a test does behind its back."""

    log: Log
    commands: Commands
    queries: Queries
    feed: Feed
    config: config.Config
    addresses: Addresses
    jobs_dir: Path
    ready: bool = True
    disk_is_full: bool = False
    jobs: int = 0

    @property
    def url(self) -> str:
        assert self.addresses.tcp is not None
        return "http://{}:{}".format(*self.addresses.tcp)

    def session(self) -> aiohttp.ClientSession:
        """A client on the Unix socket."""
        connector = aiohttp.UnixConnector(str(self.addresses.socket), limit=0)
        return aiohttp.ClientSession("http://finetuned", connector=connector)

    async def accept_job(self) -> str:
        """A queued job that came in by no door."""
        self.jobs += 1
        job_id = f"job-{self.jobs}"
        fact = facts.JobSubmitted(
            kind="fake", name=None, params={}, priority=0, metadata={}, devices=1, validates=False,
            max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None,
        )  # fmt: skip
        await self.log.execute(lambda world: decisions.submit(world, job_id, fact, actor="test"))
        return job_id

    async def start_attempt(self) -> None:
        await self.log.execute(lambda world: decisions.schedule(world, in_backoff=frozenset()))

    async def report(self, job_id: str, *reported: facts.Fact) -> None:
        """Append facts to a job's stream as its worker's."""
        events = [decisions.job_event(job_id, fact, actor="attempt:1") for fact in reported]
        await self.log.append(events)

    async def progress(self, job_id: str, *steps: int) -> None:
        """Append one event a step, in one commit."""
        await self.report(job_id, *(facts.JobProgress({"current_step": step}) for step in steps))

    async def end_attempt(self, job_id: str, *, error: bool = False) -> None:
        """Let the live attempt end: with a result, or crashed for good."""
        job = await self.queries.job(job_id)
        assert job.attempt is not None
        number = job.attempt.number
        if not error:
            await self.report(job_id, facts.AttemptResult(attempt=number, values={"train_loss": 0.5}))
        end = decisions.End(
            exit_code=1 if error else 0, signal=None, lost=None, problem=None, oom_killed=False, usage={}
        )
        await self.log.execute(
            lambda world: decisions.ended(world, job_id, number, end, resume_from=None, jitter=0.0)
        )

    def output_file(self, job_id: str, attempt: int, name: str = "output.log") -> Path:
        directory = self.jobs_dir / job_id / "attempts" / str(attempt)
        directory.mkdir(parents=True, exist_ok=True)
        return directory / name


Open = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A directory whose name is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="ft-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def open_house(state_dir: Path, no_blocking: None) -> Open:
    """Serves a daemon with the given settings."""

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[House]:
        chosen = config.Config(
            **{"state_dir": state_dir, "listen": "127.0.0.1:0", "sse_coalesce_s": 0.005, **settings}
        )
        registry = Registry()
        registry.job_kind(JobKind(name="fake", summary="Does nothing.", params=FakeParams, entry="fake:run"))
        jobs_dir = state_dir / "jobs"
        async with open_log(state_dir / "events.sqlite") as log:
            board = Board(log)
            queries = Queries(log, board, registry, jobs_dir)

            async def check_room() -> None:
                if house.disk_is_full:
                    raise StorageFullError("The disk is full; free some space.")

            async def host() -> Host:
                return Host()

            commands = Commands(log, board, queries, registry, host=host, check_room=check_room)
            doors = Doors(commands, queries, chosen, time.monotonic(), lambda: house.ready)
            app = build(doors)
            await log.execute(lambda world: decisions.devices_detected(world, [CPU]))
            async with serve(app, chosen) as addresses:
                house = House(log, commands, queries, app[FEED], chosen, addresses, jobs_dir)
                yield house

    return opened


@pytest.fixture(name="house")
async def served_house(open_house: Open) -> AsyncIterator[House]:
    # In a task of its own: pytest-asyncio begins and ends a fixture in different tasks, which no task group bears.
    opened: asyncio.Queue[House] = asyncio.Queue()
    done = asyncio.Event()

    async def live() -> None:
        async with open_house() as house:
            opened.put_nowait(house)
            await done.wait()

    living = asyncio.create_task(live())
    waiting = asyncio.create_task(opened.get())
    await asyncio.wait((living, waiting), return_when=asyncio.FIRST_COMPLETED)
    if living.done():
        waiting.cancel()
        await living
    yield await waiting
    done.set()
    await living


@pytest.fixture
async def client(house: House) -> AsyncIterator[aiohttp.ClientSession]:
    async with house.session() as session:
        yield session


async def until(condition: Callable[[], object]) -> None:
    """Look again and again until a condition holds that others bring about."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - no event comes from there
            await anyio.sleep(0.01)


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], object]], Any]:
    return until
