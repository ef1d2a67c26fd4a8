"""A log that cannot be read for a moment ends no follower and no stream but, at most, the one that reads."""

from __future__ import annotations

from typing import Any

import aiohttp
import anyio
import pytest
from tests.acceptance.api.test_event_stream import stream

from finetuned import followers, patience
from finetuned.store import queries
from finetuned.webhooks.deliveries import CONTROL
from finetuned_events import LogBrokenError, LogReadError


class Reads:
    """One method of the log, which fails ``failures`` times when its first argument is ``first``, or any.

    Not for the deliveries to webhooks, which read the log beside what is tried here.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        log: Any,
        method: str,
        *,
        failures: int = 1,
        first: str | None = None,
    ) -> None:
        self.failures = failures
        self.first = first
        self.failed = 0
        self.error: type[Exception] = LogReadError
        self._whole = getattr(log, method)
        monkeypatch.setattr(log, method, self._read)

    async def _read(self, *args: Any, **named: Any) -> Any:
        meant = self.first is None or args[0] == self.first
        if self.failures and meant and named.get("types") != CONTROL:
            self.failures -= 1
            self.failed += 1
            raise self.error("disk I/O error")
        return await self._whole(*args, **named)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def remover(house: Any) -> followers.FileRemover:
    return followers.FileRemover(house.jobs_dir)


async def deleted_job(house: Any, client: Any) -> Any:
    """An ended job with files, deleted; its directory."""
    job_id = await house.accept_job()
    await (await client.post(f"/v1/jobs/{job_id}/cancel")).read()
    directory = anyio.Path(house.jobs_dir / job_id)
    await directory.mkdir(parents=True)
    assert (await client.delete(f"/v1/jobs/{job_id}")).status in {200, 204}
    return directory


async def gone(path: Any) -> None:
    with anyio.fail_after(20):
        while await path.exists():  # noqa: ASYNC110 - no event comes
            await anyio.sleep(0.01)


@pytest.mark.parametrize("method", ["position", "scan"])
async def test_a_follower_whose_cursor_or_events_cannot_be_read_goes_on_later(
    house: Any, client: Any, remover: followers.FileRemover, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    directory = await deleted_job(house, client)
    reads = Reads(monkeypatch, house.log, method, failures=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(followers.follow, house.log, remover)
        await gone(directory)
        tasks.cancel_scope.cancel()
    assert reads.failed == 2


async def test_a_follower_of_a_broken_log_ends_the_daemon(
    house: Any, remover: followers.FileRemover, monkeypatch: pytest.MonkeyPatch
) -> None:
    Reads(monkeypatch, house.log, "scan").error = LogBrokenError
    with anyio.fail_after(20), pytest.raises(LogBrokenError):
        await followers.follow(house.log, remover)


async def test_the_remover_of_datasets_reads_again_what_an_ended_job_had(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await house.accept_job()
    await house.start_attempt()
    await house.end_attempt(job_id)
    remover = followers.DatasetRemover(house.commands.datasets)
    reads = Reads(monkeypatch, house.log, "fetch", first=queries()["select_job"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(followers.follow, house.log, remover)
        with anyio.fail_after(20):
            while await house.log.position(remover.name) < house.log.head:  # noqa: ASYNC110 - no event comes
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert reads.failed == 1


async def test_the_dispatcher_tells_of_what_it_could_not_read_at_first(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noticing:
        noticed = 0

        def notice(self) -> None:
            self.noticed += 1

    supervision: Any = Noticing()
    await house.accept_job()
    await house.start_attempt()
    reads = Reads(monkeypatch, house.log, "scan")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: followers.dispatch(house.log, supervision, after=0))
        with anyio.fail_after(20):
            while not supervision.noticed:  # noqa: ASYNC110 - looked at from outside
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert (reads.failed, supervision.noticed) == (1, 1)


async def test_streams_at_the_head_get_what_the_feed_could_not_read_at_first(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await house.accept_job()
    async with stream(client) as events:
        monkeypatch.setattr(house.log, "recent", lambda _after: None)  # it is only in the file by now
        reads = Reads(monkeypatch, house.log, "scan")
        await house.progress(job_id, 1, 2)
        assert await events.seqs(2) == [house.log.head - 1, house.log.head]
        await house.progress(job_id, 3)
        assert await events.seqs(1) == [house.log.head]
    assert reads.failed == 1


async def test_a_stream_whose_past_cannot_be_read_is_cut_and_no_other(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await house.accept_job()
    async with stream(client) as other:
        await house.progress(job_id, 1)
        assert await other.seqs(1) == [house.log.head]  # the feed is at the head: what was before is the past
        reads = Reads(monkeypatch, house.log, "scan")
        async with stream(client, after=0) as cut:
            with pytest.raises(aiohttp.ClientPayloadError):
                await cut.frame()
        await house.progress(job_id, 2)
        assert await other.seqs(1) == [house.log.head]
        async with stream(client, after=house.log.head - 1) as again:
            assert await again.seqs(1) == [house.log.head]
    assert reads.failed == 1
