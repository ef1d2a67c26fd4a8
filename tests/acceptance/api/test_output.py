"""What a job's processes printed: from the end, from the start, and on over rotation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from finetuned.domain import facts
from finetuned.output import files as logs
from finetuned.output import search as log_search
from finetuned.output.files import OutputGapError
from finetuned.queries import output as queries_output


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
    """As the runner does it: named for the position of the first byte."""
    rotated = sorted(file.parent.glob("output.log.*"), key=lambda path: int(path.suffix[1:]))
    start = int(rotated[-1].suffix[1:]) + rotated[-1].stat().st_size if rotated else 0
    file.rename(file.with_name(f"output.log.{start}"))


async def test_output_is_joined_over_rotation_and_attempts(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    path = f"/v1/jobs/{job_id}/logs"
    assert await text(client, path) == ""
    output_file(house, job_id, 1, "output.log.0").write_text("one\n")
    output_file(house, job_id, 1, "output.log.4").write_text("two\nthree\n")
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
    output_file(house, job_id, 1, "output.log.0").write_text("one\ntwo\nthree\n")
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
    token, secret = await house.commands.tokens.create(scope="read", name=None, actor="test")
    got = bytearray()
    async with (
        aiohttp.ClientSession(house.url, headers={"Authorization": f"Bearer {secret}"}) as client,
        client.get(f"/v1/jobs/{job_id}/logs", params={"follow": "true"}) as response,
    ):
        got += await response.content.readany()
        await house.commands.tokens.revoke(token.id, actor="test")
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


# ---- positions -------------------------------------------------------------------------------------------


async def read_from(client: Any, job_id: str, after: str | None = None, **parameters: Any) -> tuple[str, str]:
    """Where an answer begins, and what it is."""
    query = parameters if after is None else parameters | {"after": after}
    async with client.get(f"/v1/jobs/{job_id}/logs", params=query) as response:
        assert response.status == 200, await response.text()
        return response.headers["Output-Position"], (await response.read()).decode()


async def two_attempts(house: Any) -> str:
    """A job whose first attempt printed 19 bytes over a rotation, and whose second 9."""
    job_id = await running_job(house)
    output_file(house, job_id, 1, "output.log.0").write_text("one\ntwo\nthree\n")
    output_file(house, job_id, 1).write_text("four\n")
    await house.end_attempt(job_id, error=True)
    await house.start_attempt()
    output_file(house, job_id, 2).write_text("five\nsix\n")
    return job_id


WHOLE = "one\ntwo\nthree\nfour\nfive\nsix\n"


async def test_counting_the_bytes_received_is_enough_to_go_on_anywhere(house: Any, client: Any) -> None:
    job_id = await two_attempts(house)
    assert await read_from(client, job_id) == ("1:0", WHOLE)
    for received in range(len(WHOLE) + 1):
        position, rest = await read_from(client, job_id, f"1:{received}")
        assert rest == WHOLE[received:]
        attempt, offset = map(int, position.split(":"))
        assert offset + (19 if attempt == 2 else 0) == received


@pytest.mark.parametrize(
    ("parameters", "position"),
    [({"tail": 1}, "2:5"), ({"tail": 3}, "1:14"), ({"tail": 0}, "2:9"), ({"attempt": 2}, "2:0"), ({}, "1:0")],
)
async def test_each_answer_says_where_it_begins(
    house: Any, client: Any, parameters: dict[str, Any], position: str
) -> None:
    job_id = await two_attempts(house)
    assert (await read_from(client, job_id, **parameters))[0] == position


async def test_a_job_that_printed_nothing_yet_has_a_position_to_go_on_from(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    position, nothing = await read_from(client, job_id)
    assert nothing == ""
    await house.start_attempt()
    output_file(house, job_id, 1).write_text("begun\n")
    assert (await read_from(client, job_id, position))[1] == "begun\n"


async def test_what_was_rotated_away_is_told_by_a_later_position(house: Any, client: Any) -> None:
    job_id = await two_attempts(house)
    output_file(house, job_id, 1, "output.log.0").rename(output_file(house, job_id, 1, "output.log.100"))
    assert await read_from(client, job_id, "1:3", attempt=1) == ("1:100", "one\ntwo\nthree\nfour\n")


async def test_following_ends_abruptly_where_output_was_removed_before_it_was_read(
    house: Any, client: Any, until: Callable[[Callable[[], object]], Any]
) -> None:
    job_id = await running_job(house)
    file = output_file(house, job_id, 1)
    file.write_text("one\n")
    got = bytearray()
    async with client.get(f"/v1/jobs/{job_id}/logs", params={"follow": "true"}) as response:
        got += await response.content.readany()
        rotate(file)
        # "two" is never there to be read: the follower looks at any moment between these lines.
        output_file(house, job_id, 1, "output.log.8").write_text("three\n")
        file.write_text("four\n")
        with anyio.fail_after(10), pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert got == b"one\n"
    assert await read_from(client, job_id, "1:4") == ("1:8", "three\nfour\n")


async def test_a_gap_is_told_though_the_file_behind_it_is_empty_at_first(house: Any) -> None:
    job_id = await running_job(house)
    file = output_file(house, job_id, 1)
    file.write_text("one\n")
    _, blocks = await house.queries.output.read(job_id, follow=True)
    async with aclosing(blocks):
        assert await anext(blocks) == b"one\n"
        rotate(file)
        later = output_file(house, job_id, 1, "output.log.8")
        later.touch()
        assert await anext(blocks) == b""
        later.write_text("three\n")
        with pytest.raises(OutputGapError):
            await anext(blocks)


@pytest.mark.parametrize(
    ("parameters", "param", "hint"),
    [
        ({"after": "1"}, "after", "such as 1:0"),
        ({"after": "x:y"}, "after", "such as 1:0"),
        ({"after": "7:0"}, "after", "attempt 7"),
        ({"after": "1:0", "attempt": "2"}, "after", "attempt 1"),
        ({"after": "1:0", "tail": "3"}, "tail", "give one of them"),
    ],
)
async def test_a_position_that_is_none_is_refused(
    house: Any, client: Any, parameters: dict[str, str], param: str, hint: str
) -> None:
    job_id = await two_attempts(house)
    async with client.get(f"/v1/jobs/{job_id}/logs", params=parameters) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["param"] == param
    assert hint in error["message"]


# ---- searching and counting --------------------------------------------------------------------------------

PRINTED = """INFO loading
WARNING: the tokenizer has no pad token
Traceback (most recent call last):
  File "train.py", line 1, in <module>
ValueError: Loss is NaN
INFO going on
"""


async def found(client: Any, job_id: str, status: int = 200, **parameters: Any) -> Any:
    async with client.get(f"/v1/jobs/{job_id}/logs/search", params=parameters) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def printing_job(house: Any) -> str:
    job_id = await running_job(house)
    first, second = (
        PRINTED[:40],
        PRINTED[40:],
    )  # a rotation within a line happens to no runner, and does no harm
    output_file(house, job_id, 1, "output.log.0").write_text(first)
    output_file(house, job_id, 1).write_text(second)
    await house.end_attempt(job_id, error=True)
    await house.start_attempt()
    output_file(house, job_id, 2).write_text("the loss is 0.5\nERROR no end")
    return job_id


async def test_lines_that_contain_a_text_are_found_whatever_its_case(house: Any, client: Any) -> None:
    job_id = await printing_job(house)
    page = await found(client, job_id, q="LOSS is")
    assert [(each["attempt"], each["line"], each["level"], each["text"]) for each in page["data"]] == [
        (1, 5, "error", "ValueError: Loss is NaN"),
        (2, 1, None, "the loss is 0.5"),
    ]
    assert not page["has_more"]
    hit = page["data"][0]
    assert PRINTED[hit["offset"] :].startswith(hit["text"])
    assert (await read_from(client, job_id, hit["id"], attempt=1))[1].startswith("ValueError")


async def test_lines_are_found_by_level_and_attempt(house: Any, client: Any) -> None:
    job_id = await printing_job(house)
    errors = await found(client, job_id, level="error")
    assert [each["line"] for each in errors["data"]] == [3, 4, 5]
    assert [each["text"] for each in (await found(client, job_id, level="warning"))["data"]] == [
        "WARNING: the tokenizer has no pad token"
    ]
    assert (await found(client, job_id, level="warning", attempt=2))["data"] == []


async def test_pages_of_one_line_find_the_same_as_one_page(house: Any, client: Any) -> None:
    job_id = await printing_job(house)
    whole = (await found(client, job_id))["data"]
    assert len(whole) == 7
    pieces: list[Any] = []
    parameters: dict[str, Any] = {"limit": 1}
    while True:
        page = await found(client, job_id, **parameters)
        pieces += page["data"]
        if not page["has_more"]:
            break
        parameters["after"] = page["next_after"]
    assert pieces == whole


async def test_a_search_goes_on_with_what_is_printed_later(house: Any, client: Any) -> None:
    job_id = await printing_job(house)
    page = await found(client, job_id, attempt=2)
    assert [each["text"] for each in page["data"]] == ["the loss is 0.5"]  # the other has no end yet
    await house.end_attempt(job_id)
    later = await found(client, job_id, attempt=2, after=page["next_after"])
    assert [(each["text"], each["line"]) for each in later["data"]] == [("ERROR no end", 2)]


async def test_a_page_looks_through_a_bounded_piece(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_search, "SCANNED_BYTES", 64 * 1024)
    job_id = await running_job(house)
    output_file(house, job_id, 1).write_text("x" * 70_000 + "\n" + "no\n" * 60_000 + "here\n")
    pages, after = 0, None
    hits: list[Any] = []
    while True:
        page = await found(client, job_id, q="here", **({} if after is None else {"after": after}))
        pages, after, hits = pages + 1, page["next_after"], hits + page["data"]
        if not page["has_more"]:
            break
    assert pages >= 3
    assert [each["text"] for each in hits] == ["here"]


async def test_a_long_line_is_cut(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    output_file(house, job_id, 1).write_text("y" * 5000 + "\n")
    (line,) = (await found(client, job_id, q="y"))["data"]
    assert (line["text"], line["is_cut"]) == ("y" * 2000, True)


@pytest.mark.parametrize(
    ("parameters", "status", "param"),
    [
        ({"after": "1:2"}, 400, "after"),
        ({"after": "a:b:c:d"}, 400, "after"),
        ({"level": "loud"}, 400, "level"),
        ({"attempt": "9"}, 404, "attempt"),
    ],
)
async def test_a_search_that_cannot_be_is_refused_by_name(
    house: Any, client: Any, parameters: dict[str, str], status: int, param: str
) -> None:
    job_id = await printing_job(house)
    assert (await found(client, job_id, status, **parameters))["error"]["param"] == param


async def counted(client: Any, job_id: str) -> Any:
    async with client.get(f"/v1/jobs/{job_id}/logs/counts") as response:
        assert response.status == 200
        return await response.json()


async def test_lines_errors_and_warnings_are_counted_and_counting_goes_on(house: Any, client: Any) -> None:
    job_id = await printing_job(house)
    first = {"attempt": 1, "lines": 6, "errors": 1, "warnings": 1}
    for _ in range(2):
        assert await counted(client, job_id) == {
            "object": "log_counts",
            "job": job_id,
            "lines": 7,
            "errors": 1,
            "warnings": 1,
            "is_complete": True,
            "attempts": [first, {"attempt": 2, "lines": 1, "errors": 0, "warnings": 0}],
        }
    with output_file(house, job_id, 2).open("a") as file:
        file.write(" but then\nlast")
    assert (await counted(client, job_id))["attempts"][1] == {
        "attempt": 2,
        "lines": 2,
        "errors": 1,
        "warnings": 0,
    }
    await house.end_attempt(job_id)
    for _ in range(2):
        assert (await counted(client, job_id))["lines"] == 9


async def test_one_request_counts_a_bounded_piece_and_the_next_ones_the_rest(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await printing_job(house)
    output_file(house, job_id, 1).write_text("a line\n" * 200_000)
    monkeypatch.setattr(queries_output, "COUNTED_BYTES", 1 << 20)
    seen = []
    while not (answer := await counted(client, job_id))["is_complete"]:
        seen.append(answer["lines"])
    assert len(seen) > 2
    assert sorted(set(seen)) == seen
    assert answer["lines"] > 200_000


async def test_counts_of_one_job_do_not_wait_for_those_of_another(house: Any, client: Any) -> None:
    first = await printing_job(house)
    await house.end_attempt(first)
    second = await printing_job(house)
    await counted(client, first)
    async with house.queries.output._count(first, 2).lock:
        with anyio.fail_after(20):
            assert (await counted(client, second))["is_complete"]
