"""Looks into the past: what one of them has folded serves the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.unit.domain.worlds import submission

from finetuned.domain import decisions, facts
from finetuned.domain.errors import ArchivedError
from finetuned.domain.streams import job_event
from finetuned.queries import past as past_module
from finetuned.queries.past import KEPT_S, Past
from finetuned.store import Log, open_log

SLOTS = [{"id": "cpu:0", "kind": "cpu", "name": "slot", "memory_bytes": 1}]


class Watched:
    """A log that counts the events which are read from it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.read_events = 0

    @property
    def head(self) -> int:
        return self.log.head

    @property
    def sealed(self) -> int:
        return self.log.sealed

    async def fetch(self, *query: Any) -> Any:
        return await self.log.fetch(*query)

    async def read(self, **which: Any) -> Any:
        page = await self.log.read(**which)
        self.read_events += len(page)
        return page

    def counted(self) -> int:
        counted, self.read_events = self.read_events, 0
        return counted


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with open_log(tmp_path / "log") as opened:
        await opened.execute(lambda world: decisions.devices_detected(world, SLOTS))
        for number in range(5):
            await submit(opened, f"job-{number}")
        yield opened


async def submit(log: Log, job_id: str) -> None:
    await log.execute(lambda world: decisions.submit(world, job_id, submission(), actor="a"))


async def ids(past: Past, at: int, **which: Any) -> list[str]:
    return [each.id for each in (await past.jobs(at, **which))[0]]


async def test_the_next_page_is_made_from_what_was_folded_for_the_first(log: Log) -> None:
    watched = Watched(log)
    past = Past(watched)  # type: ignore[arg-type]
    at = log.head
    assert await ids(past, at, limit=2) == ["job-4", "job-3"]
    assert watched.counted() == at
    assert await ids(past, at, limit=2, after="job-3") == ["job-2", "job-1"]
    assert watched.counted() == 0


async def test_a_later_moment_goes_on_from_the_one_before(log: Log) -> None:
    watched = Watched(log)
    past = Past(watched)  # type: ignore[arg-type]
    before = log.head
    await past.jobs(before)
    watched.counted()
    await submit(log, "job-5")
    await log.execute(lambda world: decisions.cancel(world, "job-0", actor="a"))
    assert await past.jobs(log.head) == await Past(log).jobs(log.head)
    assert watched.counted() == log.head - before
    # The head was all there was: what came after it is in the next look.
    assert await ids(past, log.head + 100, limit=1) == ["job-5"]
    await submit(log, "job-6")
    assert await ids(past, log.head + 100, limit=1) == ["job-6"]


async def test_an_earlier_moment_is_folded_anew(log: Log) -> None:
    watched = Watched(log)
    past = Past(watched)  # type: ignore[arg-type]
    await past.jobs(log.head)
    watched.counted()
    assert await ids(past, 3) == ["job-1", "job-0"]
    assert watched.counted() == 3


async def test_what_was_folded_leaves_memory_when_nobody_asks_for_it(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_module, "KEPT_S", 0.0)
    watched = Watched(log)
    past = Past(watched)  # type: ignore[arg-type]
    await past.jobs(log.head)
    with anyio.fail_after(10):
        while past._kept is not None:
            await anyio.lowlevel.checkpoint()
    watched.counted()
    assert await ids(past, log.head, limit=1) == ["job-4"]
    assert watched.counted() == log.head


async def test_each_look_keeps_what_was_folded_for_another_minute(log: Log) -> None:
    past = Past(log)
    ends: list[float] = []
    for _ in range(3):
        before = past._forgetting
        earliest = asyncio.get_running_loop().time() + KEPT_S
        await past.jobs(log.head)
        assert before is None or before.cancelled()
        assert past._forgetting is not None
        assert not past._forgetting.cancelled()
        ends.append(past._forgetting.when())
        assert ends[-1] >= earliest
    assert ends == sorted(ends)


async def test_a_look_that_breaks_off_leaves_nothing_half_folded_and_no_timer(log: Log) -> None:
    past = Past(log)
    await past.jobs(log.head)
    before = past._forgetting
    assert before is not None
    await submit(log, "job-5")

    class Broken(Watched):
        async def read(self, **_which: Any) -> Any:
            raise OSError("unreadable")

    past.log = Broken(log)  # type: ignore[assignment]
    with pytest.raises(OSError, match="unreadable"):
        await past.jobs(log.head)
    assert before.cancelled()
    assert (past._kept, past._forgetting) == (None, None)


async def test_devices_and_models_are_made_from_their_own_events_only(log: Log) -> None:
    watched = Watched(log)
    past = Past(watched)  # type: ignore[arg-type]
    assert [slot.id for slot in await past.devices(log.head)] == ["cpu:0"]
    assert await past.models(log.head) == ([], [])
    assert watched.counted() == 1


async def test_each_job_of_a_page_has_the_progress_of_then(log: Log) -> None:
    def progress(job_id: str, *steps: int) -> list[Any]:
        told = [facts.JobProgress({"current_step": step}) for step in steps]
        return [job_event(job_id, fact, actor="attempt:1") for fact in told]

    await log.append(progress("job-1", 1, 2))
    await log.append(progress("job-2", 7))
    before = log.head
    await log.append(progress("job-1", 3))
    await log.append(progress("job-2", 8, 9))
    shown, _ = await Past(log).jobs(before)
    assert [each.progress for each in shown] == [None, None, {"current_step": 7}, {"current_step": 2}, None]
    newest = {each.id: (each.version, each.updated_seq) for each in shown}
    assert (newest["job-1"], newest["job-2"], newest["job-0"]) == ((3, before - 1), (2, before), (1, 2))


class Behind(Watched):
    """A log of which a reader does not know yet that it was archived further."""

    def __init__(self, log: Log, sealed: int) -> None:
        super().__init__(log)
        self._sealed = sealed

    @property
    def sealed(self) -> int:
        return self._sealed


async def test_copies_of_a_newer_seal_than_is_known_are_not_taken_for_those_of_the_older(log: Log) -> None:
    await log.archive(3)
    assert await ids(Past(log), 4) == ["job-2", "job-1", "job-0"]
    await log.archive(5)
    behind = Past(Behind(log, 3))  # type: ignore[arg-type]
    looks: list[Callable[[], Awaitable[object]]] = [
        lambda: behind.jobs(4),
        lambda: behind.job("job-0", 4),
        lambda: behind.job("job-3", 4),
        lambda: behind.devices(4),
        lambda: behind.models(4),
    ]
    for look in looks:
        with pytest.raises(ArchivedError, match="Events up to 5 were archived just now; ask again"):
            await look()
    assert (await Past(log).job("job-3", 6)).id == "job-3"
    assert await ids(Past(log), 6) == ["job-4", "job-3", "job-2", "job-1", "job-0"]
