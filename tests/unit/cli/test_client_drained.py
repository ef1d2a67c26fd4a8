"""A drain that is waited for, over a connection that only pretends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from finetuned.client.drained import drained
from finetuned.client.endpoint import Endpoint
from finetuned.client.errors import UnreachableError
from finetuned.client.transport import SILENCE_TIMEOUT
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import Drain


class Line:
    """A transport with one stream: of these events, and then its end."""

    def __init__(self, *events: tuple[str, str], endpoint: Endpoint | None = None, cut: bool = False) -> None:
        self.endpoint = endpoint or Endpoint(socket=Path("/s"))
        self.events = events
        self.cut = cut
        self.silence: float | None = -1.0
        self.opened = 0

    @asynccontextmanager
    async def stream(self, _path: str, *, silence: float | None, **_given: Any) -> AsyncIterator[Any]:
        self.silence = silence
        self.opened += 1
        yield self

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n:\nid: 1\n\n"
        for kind, stream in self.events:
            yield f"id: 2\nevent: {kind}\ndata: {json.dumps({'type': kind, 'stream': stream})}\n\n".encode()
        if self.cut:
            raise aiohttp.ClientPayloadError


async def jobs_of(line: Line, *begun: str) -> list[list[str]]:
    """The jobs that are left, each time that is told."""

    async def begin() -> Drain:
        assert line.opened == 1  # before the request, or its events were missed
        return {"object": "drain", "mode": "pause", "jobs": list(begun)}

    return [state["jobs"] async for state in drained(line, begin)]  # type: ignore[arg-type]


async def test_a_drain_ends_with_the_stream_and_tells_of_each_job_that_starts_or_ends() -> None:
    line = Line(("attempt.ended", "job/1"), ("attempt.starting", "job/3"), ("attempt.ended", "job/2"))
    assert await jobs_of(line, "1", "2") == [["1", "2"], ["2"], ["2", "3"], ["3"]]
    assert line.opened == 1


async def test_what_happened_before_the_answer_changes_nothing_of_what_it_says() -> None:
    line = Line(("attempt.ended", "job/1"), ("attempt.starting", "job/1"), ("attempt.ended", "job/2"))
    assert (await jobs_of(line, "1"))[-1] == ["1"]


async def test_a_stream_that_is_cut_once_nothing_is_left_was_the_end() -> None:
    assert (await jobs_of(Line(("attempt.ended", "job/1"), cut=True), "1"))[-1] == []
    assert await jobs_of(Line(cut=True)) == [[]]


async def test_a_stream_that_is_cut_while_jobs_are_left_says_so_and_what_to_do() -> None:
    with pytest.raises(UnreachableError, match=r"still had processes.*`finetune drain` goes on"):
        await jobs_of(Line(cut=True), "1")


async def test_a_drain_that_is_taken_back_is_told() -> None:
    with pytest.raises(InvalidRequestError, match="taken back; the daemon goes on") as refusal:
        await jobs_of(Line(("daemon.drain_taken_back", "daemon")), "1")
    assert refusal.value.stable_code == "drain_taken_back"


async def test_a_local_daemon_is_waited_for_however_long_it_is_silent() -> None:
    local, away = Line(), Line(endpoint=Endpoint(url="http://far:8642"))
    await jobs_of(local)
    await jobs_of(away)
    assert (local.silence, away.silence) == (None, SILENCE_TIMEOUT)
