"""A moment of the log: a position, or a time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetuned import views
from finetuned.domain.errors import InvalidRequestError
from finetuned.queries import moments
from finetuned.store import open_log
from finetuned_events import NewEvent


async def test_a_time_means_the_newest_event_up_to_it(tmp_path: Path) -> None:
    async with open_log(tmp_path / "events.sqlite") as log:
        assert await moments.position(log, "2026-01-31T12:00:00Z") == 0
        for _ in range(9):
            await log.append([NewEvent(stream="daemon", type="daemon.stopped", data={})])
        events = await log.read()
        for event in events:
            newest = max(each.seq for each in events if each.at <= event.at)
            assert await moments.position(log, views.time(event.at)) == newest
            earlier = [each.seq for each in events if each.at < event.at]
            assert await moments.position(log, views.time(event.at - 1)) == max(earlier, default=0)
        assert await moments.position(log, "2001-01-01T00:00:00Z") == 0
        assert await moments.position(log, "9999-12-31T23:59:59Z") == 9


async def test_a_position_beyond_the_head_means_the_head(tmp_path: Path) -> None:
    async with open_log(tmp_path / "events.sqlite") as log:
        await log.append([NewEvent(stream="daemon", type="daemon.stopped", data={})])
        assert [await moments.position(log, at) for at in ("0", "1", "99999")] == [0, 1, 1]


@pytest.mark.parametrize("at", ["2026-01-31T12:00:00.5+01:00", "2026-01-31T12:00:00.5 01:00"])
def test_a_plus_that_was_not_encoded_is_understood(at: str) -> None:
    expected = datetime(2026, 1, 31, 11, 0, 0, 500_000, tzinfo=UTC)
    assert moments.microseconds(at) == int(expected.timestamp() * 1_000_000)


@pytest.mark.parametrize("at", ["", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-13-01T00:00:00Z", "²"])
def test_what_is_neither_is_refused_with_an_example(at: str) -> None:
    with pytest.raises(InvalidRequestError, match="2026-01-31T12:00:00Z") as refused:
        moments.microseconds(at)
    assert refused.value.param == "at"
