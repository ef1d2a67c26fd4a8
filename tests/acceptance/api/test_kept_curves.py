"""What is kept of curves that were read: no more than some memory, and no longer than somebody asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from finetuned.domain import facts
from finetuned.results import curves
from finetuned.results.curves import CurveReader, Found


@dataclass
class Reading:
    """A reader on a house's log, and from where it went through which job."""

    house: Any
    now: float = 1000.0
    scans: list[tuple[str, int]] = field(default_factory=list)
    reader: CurveReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = CurveReader(self.house.log, clock=lambda: self.now)

    async def read(
        self, job_id: str, *, names: tuple[str, ...] | None = None, until: int | None = None
    ) -> Found:
        job = await self.house.queries.job(job_id)
        return await self.reader.read(job, points=100, names=names, each_attempt=False, until=until)

    async def begins(self, job_id: str, **asked: Any) -> bool:
        """Read, and tell whether that began with the log's first event."""
        self.scans.clear()
        await self.house.progress(job_id, 1)
        await self.read(job_id, **asked)
        return (f"job/{job_id}", 0) in self.scans


@pytest.fixture
def reading(house: Any, monkeypatch: pytest.MonkeyPatch) -> Reading:
    made = Reading(house)
    whole = house.log.scan

    async def scan(*, after: int, **named: Any) -> Any:
        if named["types"] == curves.FIGURES:
            made.scans.append((named["stream"], after))
        return await whole(after=after, **named)

    monkeypatch.setattr(house.log, "scan", scan)
    return made


async def trained(house: Any, *figures: str) -> str:
    """A job that has reported 100 steps of each figure; one device for all, so jobs end before the next."""
    job_id: str = await house.accept_job()
    await house.start_attempt()
    await house.report(job_id, facts.AttemptStarted(attempt=1))
    await house.report(
        job_id,
        *(facts.JobProgress({"current_step": step, **dict.fromkeys(figures, 0.5)}) for step in range(1, 101)),
    )
    await house.end_attempt(job_id)
    return job_id


async def test_curves_that_are_asked_for_again_go_on_where_they_stood(reading: Reading) -> None:
    job_id = await trained(reading.house, "loss")
    assert await reading.begins(job_id)
    reading.now += curves.KEPT_S - 1
    assert not await reading.begins(job_id)
    assert reading.scans != []


async def test_curves_that_nobody_asked_for_in_ten_minutes_are_forgotten_with_the_next_ones(
    reading: Reading,
) -> None:
    first, second = await trained(reading.house, "loss"), await trained(reading.house, "loss")
    await reading.read(first)
    reading.now += curves.KEPT_S + 1
    await reading.read(second)
    assert await reading.begins(first)
    assert not await reading.begins(second)


async def test_of_more_points_than_are_kept_the_oldest_go_and_the_newest_stay(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "KEPT_POINTS", 900)
    small = await trained(reading.house, "a")
    other = await trained(reading.house, "a")
    large = await trained(reading.house, "a", "b", "c", "d", "e")
    await reading.read(small)
    await reading.read(other)
    assert not await reading.begins(small)  # both fit
    assert not await reading.begins(other)
    await reading.read(large)
    assert not await reading.begins(large)  # by itself it is too much, and is kept all the same
    assert await reading.begins(small)
    assert await reading.begins(large)


async def test_any_number_of_small_curves_is_kept(reading: Reading) -> None:
    jobs = [await trained(reading.house, "loss") for _ in range(6)]
    for job_id in jobs:
        await reading.read(job_id)
    assert [await reading.begins(job_id) for job_id in jobs] == [False] * 6


async def test_a_look_at_the_past_pushes_out_nothing_and_is_not_kept(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "KEPT_POINTS", 900)
    job_id = await trained(reading.house, "loss")
    await reading.read(job_id)
    head = reading.house.log.head
    for until in range(head - 10, head + 1):
        assert await reading.begins(job_id, until=until)
    assert not await reading.begins(job_id)
    assert await reading.begins(job_id, until=head)
