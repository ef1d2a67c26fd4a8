"""Server-sent events: resumed without loss, shared by many, held up by nobody."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
import pytest

from finetuned.client.sse import Frame, Parser
from finetuned.domain import facts


class Stream:
    """One open stream, read frame by frame."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._parser = Parser()
        self._frames: list[Frame] = []

    async def frame(self) -> Frame:
        with anyio.fail_after(20):
            while not self._frames:
                chunk = await self.response.content.readany()
                assert chunk, "the stream ended"
                self._frames += self._parser.feed(chunk)
        return self._frames.pop(0)

    async def frames(self, count: int) -> list[Frame]:
        return [await self.frame() for _ in range(count)]

    async def seqs(self, count: int) -> list[int]:
        """Those of the next events; what only keeps the stream alive is passed over."""
        found: list[int] = []
        while len(found) < count:
            frame = await self.frame()
            if frame.data is not None:
                found.append(json.loads(frame.data)["seq"])
        return found


@asynccontextmanager
async def stream(
    session: aiohttp.ClientSession, path: str = "/v1/events", *, last: int | None = None, **parameters: Any
) -> AsyncIterator[Stream]:
    headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": str(last)})
    async with session.get(path, params=parameters, headers=headers) as response:
        assert response.status == 200, await response.text()
        yield Stream(response)


async def test_a_frame_carries_seq_type_and_the_same_json_as_a_page(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    page = await (await client.get("/v1/events")).json()
    async with stream(client, after=0) as events:
        assert events.response.content_type == "text/event-stream"
        frames = await events.frames(len(page["data"]))
    assert [json.loads(frame.data or "") for frame in frames] == page["data"]
    assert [(frame.id, frame.event) for frame in frames] == [
        (str(event["seq"]), event["type"]) for event in page["data"]
    ]
    assert page["data"][-1]["stream"] == f"job/{job_id}"


async def test_a_stream_of_all_begins_at_the_head_and_one_of_a_job_at_its_first_event(
    house: Any, client: Any
) -> None:
    job_id = await house.accept_job()
    async with stream(client) as of_all, stream(client, f"/v1/jobs/{job_id}/events") as of_job:
        assert (await of_job.frame()).event == "job.submitted"
        await house.progress(job_id, 1)
        assert (await of_all.frame()).event == "job.progress"
        assert (await of_job.frame()).event == "job.progress"


async def test_a_stream_cut_at_random_places_misses_nothing_and_repeats_nothing(
    house: Any, client: Any
) -> None:
    job_id = await house.accept_job()
    start = house.log.head
    total, cuts = 3000, 0
    seen: list[int] = []
    chance = random.Random(1)

    async def write() -> None:
        step = 0
        while step < total:
            steps = range(step, min(total, step + chance.randint(1, 40)))
            await house.progress(job_id, *steps)
            step = steps.stop
            await anyio.sleep(chance.choice((0, 0, 0.001, 0.01)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        last = start
        while len(seen) < total:
            cuts += 1
            cursor = {"last": last} if cuts % 2 else {"after": last}
            async with stream(client, **cursor) as events:
                seen += await events.seqs(min(total - len(seen), chance.randint(1, 60)))
            last = seen[-1]
    assert seen == list(range(start + 1, start + total + 1))
    assert cuts > 50


async def test_replay_and_live_meet_without_a_gap_while_events_keep_coming(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    await house.progress(job_id, *range(500))
    total = house.log.head + 1000

    async def follow(done: list[list[int]]) -> None:
        async with stream(client, after=0) as events:
            done.append(await events.seqs(total))

    followed: list[list[int]] = []
    async with anyio.create_task_group() as tasks:
        for step in range(1000):
            if step % 50 == 0:
                tasks.start_soon(follow, followed)
            await house.progress(job_id, step)
    assert followed == [list(range(1, total + 1))] * 20


async def test_last_event_id_counts_more_than_the_url_it_comes_with(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    await house.progress(job_id, 1, 2, 3)
    async with stream(client, after=0, last=house.log.head - 1) as events:
        assert await events.seqs(1) == [house.log.head]


async def test_a_cursor_beyond_the_head_is_reset_to_the_head(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    head = house.log.head
    async with stream(client, last=head + 1_000) as events:
        reset = await events.frame()
        await house.progress(job_id, 1)
        following = await events.frame()
    assert (reset.event, reset.id) == ("reset", str(head))
    assert json.loads(reset.data or "") == {"reason": "cursor_beyond_head", "head": head}
    assert following.id == str(head + 1)


async def test_filters_by_job_and_type_leave_out_the_rest_in_replay_and_live(house: Any, client: Any) -> None:
    first, second = await house.accept_job(), await house.accept_job()

    async def events() -> None:
        for job_id in (first, second):
            await house.progress(job_id, 1)
            await house.report(job_id, facts.JobPhase(phase="training"))

    await events()
    async with (
        stream(client, f"/v1/jobs/{first}/events", types="job.progress") as one,
        stream(client, after=0, types="job.phase,job.progress") as both,
    ):
        replayed = await one.frames(1) + await both.frames(4)
        await events()
        live = await one.frames(1) + await both.frames(4)
    expected = [(first, "progress")] + [
        (job, what) for job in (first, second) for what in ("progress", "phase")
    ]
    for frames in (replayed, live):
        shown = [(json.loads(frame.data or "")["stream"], frame.event) for frame in frames]
        assert shown == [(f"job/{job}", f"job.{what}") for job, what in expected]


async def test_a_heartbeat_moves_the_cursor_past_events_that_the_filter_left_out(
    open_house: Any, open_client: Any
) -> None:
    async with open_house(sse_heartbeat_s=0.05) as house, open_client(house) as client:
        job_id = await house.accept_job()
        async with stream(client, types="job.failed") as events:
            await house.progress(job_id, 1, 2, 3)
            head = house.log.head
            frame = await events.frame()
            while int(frame.id or 0) < head:
                frame = await events.frame()
    assert frame.id == str(head)
    assert frame.data is None, "a heartbeat is nothing that an EventSource dispatches"


async def test_more_events_than_memory_holds_reach_a_live_client_in_order(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    start = house.log.head
    async with stream(client) as events:
        await house.log.append(
            [
                _progress_event(job_id, step)
                for step in range(12_000)  # the log keeps a few thousand in memory
            ]
        )
        assert await events.seqs(12_000) == list(range(start + 1, start + 12_001))


def _progress_event(job_id: str, step: int) -> Any:
    from finetuned.domain.streams import job_event

    return job_event(job_id, facts.JobProgress({"current_step": step}), actor="test")


def _deaf_client(house: Any) -> socket.socket:
    """A client that asks for everything and never reads."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.connect(str(house.addresses.socket))
    connection.sendall(b"GET /v1/events?stream=true&after=0 HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


async def test_clients_that_never_read_are_cut_and_cost_the_others_nothing(
    open_house: Any, open_client: Any, until: Callable[[Callable[[], object]], Any]
) -> None:
    async with open_house(sse_write_timeout_s=1.0) as house, open_client(house) as client:
        job_id = await house.accept_job()
        start = house.log.head
        deaf = [await asyncio.to_thread(_deaf_client, house) for _ in range(50)]
        try:
            await until(lambda: house.feed.clients == 50)
            unsent: list[int] = []
            async with stream(client) as healthy:
                for step in range(0, 20_000, 100):
                    await house.progress(job_id, *range(step, step + 100))
                    first = start + step + 1
                    assert await healthy.seqs(100) == list(range(first, first + 100))
                    unsent += [each.transport.get_write_buffer_size() for each in house.feed._open]
                await until(lambda: house.feed.clients == 1)
            assert 0 < max(unsent) < 256 * 1024, "what a client does not read stays in the log, not in memory"
        finally:
            for connection in deaf:
                connection.close()


async def test_a_slow_client_gets_every_event_at_its_own_pace(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    start = house.log.head
    reader, writer = await asyncio.open_unix_connection(str(house.addresses.socket), limit=4096)
    writer.write(b"GET /v1/events?stream=true HTTP/1.0\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"\n\n")
    for step in range(0, 10_000, 200):
        await house.progress(job_id, *range(step, step + 200))
    parser = Parser()
    seen: list[int] = []
    with anyio.fail_after(30):
        while len(seen) < 10_000:
            chunk = await reader.read(4096)
            seen += [int(frame.id or 0) for frame in parser.feed(chunk) if frame.data is not None]
            if len(seen) % 1000 < 20:
                await anyio.sleep(0.01)
    writer.close()
    await writer.wait_closed()
    assert seen == list(range(start + 1, start + 10_001))


async def test_open_streams_end_when_the_server_closes_and_leave_no_task(
    open_house: Any, open_client: Any, until: Callable[[Callable[[], object]], Any]
) -> None:
    before = asyncio.all_tasks()
    bodies: list[bytes] = []

    async def read_to_the_end(client: aiohttp.ClientSession) -> None:
        async with client.get("/v1/events?stream=true") as response:
            bodies.append(await response.content.read())

    async with anyio.create_task_group() as tasks:
        async with open_house() as house:
            client = open_client(house)
            for _ in range(20):
                tasks.start_soon(read_to_the_end, client)
            await until(lambda: house.feed.clients == 20)
        assert house.feed.clients == 0
    assert bodies == [b"retry: 2000\n\n"] * 20, "each ended as a whole response, not as a broken connection"
    await client.close()
    assert asyncio.all_tasks() <= before


async def test_a_client_that_goes_is_forgotten(
    house: Any, client: Any, until: Callable[[Callable[[], object]], Any]
) -> None:
    async with stream(client):
        await until(lambda: house.feed.clients == 1)
    await until(lambda: house.feed.clients == 0)
    assert not house.feed._at_head


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "99999999999999999999"])
async def test_a_cursor_that_is_no_position_is_refused(client: Any, cursor: str) -> None:
    for asked in (
        client.get("/v1/events", params={"stream": "true"}, headers={"Last-Event-ID": cursor}),
        client.get("/v1/events", params={"stream": "true", "after": cursor}),
    ):
        response = await asked
        assert response.status == 400
        assert (await response.json())["error"]["param"] in {"after", "Last-Event-ID"}
