"""What a job's processes printed: from the end, from the start, and on over rotation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from finetuned import logs
from finetuned.domain import facts


def output_file(house: Any, job_id: str, attempt: int, name: str = "output.log") -> Path:
    """Where an attempt's output is."""
    directory: Path = house.jobs_dir / job_id / "attempts" / str(attempt)
    directory.mkdir(parents=True, exist_ok=True)
    return directory / name


async def running_job(house: Any) -> str:
    job_id: str = await house.accept_job()
    await house.start_attempt()
    await house.report(job_id, facts.AttemptStarted(attempt=1))
    return job_id


async def text(client: Any, path: str, **parameters: Any) -> str:
    async with client.get(path, params=parameters) as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        return (await response.read()).decode()  # type: ignore[no-any-return]  # the client fixture is Any


@asynccontextmanager
async def followed(client: Any, path: str, **parameters: Any) -> AsyncIterator[tuple[bytearray, anyio.Event]]:
    """Reads in the background; what came so far, and whether the server ended it."""
    got, ended = bytearray(), anyio.Event()

    async def read() -> None:
        async with client.get(path, params={"follow": "true"} | parameters) as response:
            async for chunk in response.content.iter_any():
                got.extend(chunk)
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        yield got, ended
        tasks.cancel_scope.cancel()


def rotate(file: Path) -> None:
    """As the runner does it: the higher the number, the older."""
    for number in range(5, 0, -1):
        older = file.with_name(f"output.log.{number}")
        if older.exists():
            older.rename(file.with_name(f"output.log.{number + 1}"))
    file.rename(file.with_name("output.log.1"))


async def test_output_is_joined_over_rotation_and_attempts(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    path = f"/v1/jobs/{job_id}/logs"
    assert await text(client, path) == ""
    output_file(house, job_id, 1, "output.log.2").write_text("one\n")
    output_file(house, job_id, 1, "output.log.1").write_text("two\nthree\n")
    output_file(house, job_id, 1).write_text("four\n")
    await house.end_attempt(job_id, error=True)
    await house.start_attempt()
    output_file(house, job_id, 2).write_text("five\nsix")
    assert await text(client, path) == "one\ntwo\nthree\nfour\nfive\nsix"
    assert await text(client, path, attempt=1) == "one\ntwo\nthree\nfour\n"
    assert await text(client, path, attempt=2) == "five\nsix"
    assert (await client.get(path, params={"attempt": 3})).status == 404


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(0, ""), (1, "six"), (2, "five\nsix"), (3, "four\nfive\nsix"), (5, "two\nthree\nfour\nfive\nsix")],
)
async def test_tail_counts_lines_from_the_end_over_rotation(
    house: Any, client: Any, tail: int, expected: str
) -> None:
    job_id = await running_job(house)
    output_file(house, job_id, 1, "output.log.1").write_text("one\ntwo\nthree\n")
    output_file(house, job_id, 1).write_text("four\nfive\nsix")
    assert await text(client, f"/v1/jobs/{job_id}/logs", tail=tail) == expected
    assert await text(client, f"/v1/jobs/{job_id}/logs", tail=99) == "one\ntwo\nthree\nfour\nfive\nsix"


async def test_tail_finds_lines_longer_than_a_block(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    long_line = "x" * (3 * logs.BLOCK_BYTES)
    output_file(house, job_id, 1).write_text(f"first\n{long_line}\nlast\n")
    assert await text(client, f"/v1/jobs/{job_id}/logs", tail=2) == f"{long_line}\nlast\n"


async def test_following_loses_no_line_while_the_file_is_rotated_and_ends_with_the_job(
    house: Any, client: Any
) -> None:
    job_id = await running_job(house)
    file = output_file(house, job_id, 1)
    expected = bytearray()
    async with followed(client, f"/v1/jobs/{job_id}/logs") as (got, ended):
        for number in range(40):
            with file.open("ab") as output:
                for line in range(25):
                    written = f"{number}:{line}\n".encode()
                    output.write(written)
                    expected += written
            if number % 8 == 7:
                rotate(file)
            await anyio.sleep(0.01)
        assert not ended.is_set()
        with file.open("ab") as output:
            output.write(b"the last words")
        await house.end_attempt(job_id)
        with anyio.fail_after(10):
            await ended.wait()
    assert bytes(got) == bytes(expected) + b"the last words"


async def test_following_goes_on_with_the_next_attempt(
    house: Any, client: Any, until: Callable[[Callable[[], object]], Any]
) -> None:
    job_id = await running_job(house)
    output_file(house, job_id, 1).write_text("before the crash\n")
    async with followed(client, f"/v1/jobs/{job_id}/logs", tail=10) as (got, ended):
        await until(lambda: b"crash" in got)
        await house.end_attempt(job_id, error=True)
        await house.start_attempt()
        await house.report(job_id, facts.AttemptStarted(attempt=2))
        output_file(house, job_id, 2).write_text("after it\n")
        await until(lambda: b"after" in got)
        assert not ended.is_set()
        await house.end_attempt(job_id)
        with anyio.fail_after(10):
            await ended.wait()
    assert got == b"before the crash\nafter it\n"


async def test_following_one_attempt_ends_with_that_attempt(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    output_file(house, job_id, 1).write_text("all of it\n")
    async with followed(client, f"/v1/jobs/{job_id}/logs", attempt=1) as (got, ended):
        await house.end_attempt(job_id, error=True)
        with anyio.fail_after(10):
            await ended.wait()
    assert got == b"all of it\n"


async def test_following_is_cut_when_its_token_is_revoked(
    house: Any, until: Callable[[Callable[[], object]], Any]
) -> None:
    job_id = await running_job(house)
    file = output_file(house, job_id, 1)
    file.write_text("before\n")
    token, secret = await house.commands.create_token(scope="read", name=None, actor="test")
    got = bytearray()
    async with (
        aiohttp.ClientSession(house.url, headers={"Authorization": f"Bearer {secret}"}) as client,
        client.get(f"/v1/jobs/{job_id}/logs", params={"follow": "true"}) as response,
    ):
        got += await response.content.readany()
        await house.commands.revoke_token(token.id, actor="test")
        with file.open("ab") as output:
            output.write(b"after\n")
        with anyio.fail_after(10), pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert got == b"before\n"


async def test_following_ends_when_the_server_closes(open_house: Any, open_client: Any) -> None:
    async with anyio.create_task_group() as tasks:
        ended = anyio.Event()

        async def read(client: Any, path: str, started: anyio.Event) -> None:
            async with client.get(path, params={"follow": "true"}) as response:
                started.set()
                await response.read()
                ended.set()

        async with open_house() as house:
            client = open_client(house)
            started = anyio.Event()
            job_id = await running_job(house)
            tasks.start_soon(read, client, f"/v1/jobs/{job_id}/logs", started)
            await started.wait()
        with anyio.fail_after(5):
            await ended.wait()
        await client.close()
