"""Files and uploads over the real sockets: OpenAI's own client, forms of every kind, and everything that is refused."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import openai
import psutil
import pytest

from finetuned import followers
from finetuned.commands.archiving import FOLLOWED
from finetuned.commands.files import FileCommands
from finetuned.domain import attempt_decisions, decisions, facts, files
from finetuned.files.uploads import MOST_OPEN, PART_BYTES
from finetuned.storage.intake import Limits
from finetuned.testing import House
from finetuned_sdk import JobKind, manifest
from finetuned_sdk.fake import FakeParams

from .conftest import Open, OpenClient, Until

ROWS = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'
SHA256 = hashlib.sha256(ROWS).hexdigest()
HOUR_US = 3600 * 1_000_000
BOUNDARY = "b0undary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
Client = aiohttp.ClientSession


async def token(house: House, scope: str = "operate") -> str:
    _, secret = await house.commands.tokens.create(scope=scope, name=None, actor="test")
    return secret


@pytest.fixture
async def theirs(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client, over TCP with a token."""
    async with openai.AsyncOpenAI(
        base_url=f"{house.url}/v1", api_key=await token(house), max_retries=0
    ) as made:
        yield made


def field(name: str, value: bytes, filename: str | None = None) -> bytes:
    told = "" if filename is None else f'; filename="{filename}"'
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{told}\r\n\r\n'.encode()
        + value
        + b"\r\n"
    )


END = f"--{BOUNDARY}--\r\n".encode()
FILE = field("file", ROWS, "rows.jsonl")
PURPOSE = field("purpose", b"batch")


async def send(
    client: Client, body: Any, headers: dict[str, str] | None = None, path: str = "/v1/files"
) -> tuple[int, dict[str, Any]]:
    async with client.post(path, data=body, headers=FORM if headers is None else headers) as answer:
        return answer.status, await answer.json()


async def sent(client: Client, content: bytes = ROWS, purpose: bytes = b"fine-tune") -> str:
    """The id of a file that was just sent."""
    body = field("purpose", purpose) + field("file", content, "rows.jsonl") + END
    status, file = await send(client, body)
    assert status == 200
    return str(file["id"])


async def get(client: Client, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path, params=query) as answer:
        return answer.status, await answer.json()


def on_disk(house: House) -> list[str]:
    """What lies in the store, what is on its way too."""
    store = house.config.state_dir / "files"
    found = (Path(folder, name) for folder, _, names in os.walk(store) for name in names)
    return sorted(str(path.relative_to(store)) for path in found)


@asynccontextmanager
async def removing(house: House) -> AsyncIterator[None]:
    """The follower that removes content, at work."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(followers.follow, house.log, followers.ContentRemover(house.commands.files))
        yield
        tasks.cancel_scope.cancel()


async def made_file(house: House) -> tuple[str, str, Path]:
    """A job that has ended with an output: its id, the file's, and where its content lies."""
    job_id = await house.accept_job()
    await house.start_attempt()
    output = house.jobs_dir / job_id / "attempts" / "1" / "artifacts" / "output.jsonl"
    await anyio.Path(output.parent).mkdir(parents=True)
    await anyio.Path(output).write_bytes(ROWS)
    await anyio.to_thread.run_sync(lambda: manifest.seal(output, kind="file:batch_output"))
    published = facts.ArtifactPublished(
        attempt=1, name="output.jsonl", kind="file:batch_output", path=str(output), bytes=len(ROWS)
    )
    reports = [
        attempt_decisions.Reported(line=1, fact=facts.AttemptStarted(attempt=1)),
        attempt_decisions.Reported(line=2, fact=published),
    ]
    await house.log.execute(lambda world: attempt_decisions.record(world, job_id, 1, reports))
    await house.end_attempt(job_id)
    return job_id, files.made_id(job_id, "output.jsonl"), output


# ---- OpenAI's client --------------------------------------------------------------------------------------


async def test_openais_client_sends_lists_reads_and_deletes_a_file(
    house: House, theirs: openai.AsyncOpenAI
) -> None:
    made = await theirs.files.create(
        file=("rows.jsonl", ROWS),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert made.model_dump() == {
        "id": made.id,
        "object": "file",
        "bytes": len(ROWS),
        "created_at": made.created_at,
        "expires_at": made.created_at + 3600,
        "filename": "rows.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert files.is_id(made.id)
    assert on_disk(house) == [f"{made.id}/data.jsonl"]
    assert await theirs.files.retrieve(made.id) == made
    assert [each.id async for each in theirs.files.list(purpose="batch")] == [made.id]
    assert [each async for each in theirs.files.list(purpose="fine-tune")] == []
    assert (await theirs.files.content(made.id)).content == ROWS
    assert (await theirs.files.wait_for_processing(made.id)).status == "processed"
    gone = await theirs.files.delete(made.id)
    assert gone.model_dump() == {"id": made.id, "object": "file", "deleted": True}
    with pytest.raises(openai.NotFoundError) as told:
        await theirs.files.retrieve(made.id)
    assert told.value.code == "file_not_found"


async def test_openais_client_pages_through_files(house: House, theirs: openai.AsyncOpenAI) -> None:
    made = [await theirs.files.create(file=ROWS, purpose="user_data") for _ in range(5)]
    ids = [each.id for each in made]
    assert [each.id async for each in theirs.files.list(limit=2)] == ids[::-1]
    assert [each.id async for each in theirs.files.list(limit=2, order="asc")] == ids
    page = await theirs.files.list(limit=2, after=ids[3])
    assert ([each.id for each in page.data], page.has_more) == ([ids[2], ids[1]], True)
    assert {each.expires_at for each in made} == {None}


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_client_that_deletes_what_it_has_paged_sees_each_file_once(
    house: House, theirs: openai.AsyncOpenAI, order: Any
) -> None:
    ids = [(await theirs.files.create(file=ROWS, purpose="user_data")).id for _ in range(5)]
    await archived(house, house.log.head)  # so that the oldest were made before what is left of the log
    ids += [(await theirs.files.create(file=ROWS, purpose="user_data")).id for _ in range(4)]
    seen = []
    async for each in theirs.files.list(limit=2, order=order):
        seen.append(each.id)
        await theirs.files.delete(each.id)
    assert seen == (ids if order == "asc" else ids[::-1])
    with pytest.raises(openai.BadRequestError, match="there is no file 'file-zzzzzzzzzz'"):
        await theirs.files.list(after="file-zzzzzzzzzz")


async def archived(house: House, upto: int) -> None:
    """Put the log's beginning away."""
    for name in FOLLOWED:
        await house.log.execute(lambda _world: (), cursor=(name, house.log.head))
    await house.commands.archives.archive(upto, actor="test")


async def test_openais_client_uploads_in_parts(house: House, theirs: openai.AsyncOpenAI) -> None:
    content = random.Random(5).randbytes(100_000)
    upload = await theirs.uploads.upload_file_chunked(
        file=content,
        filename="rows.jsonl",
        bytes=len(content),
        mime_type="application/jsonl",
        purpose="fine-tune",
        part_size=30_000,
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert upload.file.bytes == len(content)
    assert (await theirs.files.content(upload.file.id)).content == content
    assert on_disk(house) == [f"{upload.file.id}/data.jsonl"]  # the parts are gone


async def test_an_upload_can_be_given_up_and_its_order_is_that_of_its_end(
    house: House, theirs: openai.AsyncOpenAI
) -> None:
    begun: Any = {"bytes": 4, "filename": "x.txt", "mime_type": "text/plain", "purpose": "user_data"}
    upload = await theirs.uploads.create(**begun)
    assert (upload.status, upload.expires_at - upload.created_at) == ("pending", 3600)
    second = await theirs.uploads.parts.create(upload.id, data=b"cd")
    first = await theirs.uploads.parts.create(upload.id, data=b"ab")
    with pytest.raises(openai.BadRequestError) as told:
        await theirs.uploads.complete(upload.id, part_ids=[first.id])
    assert told.value.code == "upload_incomplete"
    with pytest.raises(openai.BadRequestError) as told:
        await theirs.uploads.complete(upload.id, part_ids=[first.id, "part_x"])
    assert told.value.code == "unknown_part"
    with pytest.raises(openai.BadRequestError) as told:
        await theirs.uploads.complete(upload.id, part_ids=[first.id, second.id], md5="0" * 32)
    assert told.value.code == "digest_mismatch"
    done = await theirs.uploads.complete(upload.id, part_ids=[first.id, second.id])
    assert done.file is not None
    assert (await theirs.files.content(done.file.id)).content == b"abcd"
    again = await theirs.uploads.complete(upload.id, part_ids=[first.id, second.id])
    assert again == done
    for others in ([second.id, first.id], ["part_x"]):
        with pytest.raises(openai.ConflictError, match="of other parts"):
            await theirs.uploads.complete(upload.id, part_ids=others)
    with pytest.raises(openai.ConflictError) as conflict:
        await theirs.uploads.cancel(upload.id)
    assert conflict.value.code == "upload_ended"

    other = await theirs.uploads.create(**begun)
    await theirs.uploads.parts.create(other.id, data=b"ab")
    for _ in range(2):  # the answer may have been lost
        assert (await theirs.uploads.cancel(other.id)).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        await theirs.uploads.complete(other.id, part_ids=["part_x"])
    with pytest.raises(openai.ConflictError):
        await theirs.uploads.parts.create(other.id, data=b"cd")
    assert on_disk(house) == [f"{done.file.id}/data.txt"]


async def test_a_part_that_arrives_after_its_upload_was_given_up_is_refused(
    house: House, client: Client
) -> None:
    begun = {"bytes": 4, "filename": "x.txt", "mime_type": "text/plain", "purpose": "user_data"}
    async with client.post("/v1/uploads", json=begun) as answer:
        path = f"/v1/uploads/{(await answer.json())['id']}"

    async def body() -> AsyncIterator[bytes]:
        yield field("data", b"ab", "part")[:-2]
        async with client.post(f"{path}/cancel") as answer:
            assert answer.status == 200
        yield b"\r\n" + END

    status, refused = await send(client, body(), path=f"{path}/parts")
    assert (status, refused["error"]["code"]) == (409, "upload_ended")
    assert on_disk(house) == []


async def test_uploads_that_nobody_completes_end_by_their_hour_or_with_the_daemon(
    open_house: Open, open_client: OpenClient, state_dir: Path
) -> None:
    begun = {"bytes": 4, "filename": "x.txt", "mime_type": "text/plain", "purpose": "user_data"}
    part = field("data", b"ab", "part") + END
    async with open_house() as house, open_client(house) as client:
        async with client.post("/v1/uploads", json=begun) as answer:
            first = (await answer.json())["id"]
        assert (await send(client, part, path=f"/v1/uploads/{first}/parts"))[0] == 200
        later(house, HOUR_US)
        await house.commands.files.expire()
        assert on_disk(house) == []
        status, refused = await send(client, part, path=f"/v1/uploads/{first}/parts")
        assert (status, refused["error"]["code"]) == (409, "upload_ended")
        async with client.post("/v1/uploads", json=begun) as answer:
            left = (await answer.json())["id"]
        assert (await send(client, part, path=f"/v1/uploads/{left}/parts"))[0] == 200
        assert len(on_disk(house)) == 1
    async with open_house() as house, open_client(house) as client:
        assert on_disk(house) == []
        status, refused = await send(client, part, path=f"/v1/uploads/{left}/parts")
        assert (status, refused["error"]["code"]) == (404, "upload_not_found")
        assert "restart" in refused["error"]["message"]


async def test_who_asks_twice_at_once_has_one_file(house: House, client: Client, until: Until) -> None:
    path, part_ids = await begun_upload(client)
    answers: list[tuple[int, dict[str, Any]]] = []

    async def complete() -> None:
        async with client.post(f"{path}/complete", json={"part_ids": part_ids}) as answer:
            answers.append((answer.status, await answer.json()))

    [upload] = house.commands.files._uploads._known.values()
    async with anyio.create_task_group() as tasks, house.commands.files.store.changing:
        tasks.start_soon(complete)  # waits for the store with its file whole
        tasks.start_soon(complete)
        await until(lambda: upload.turn.statistics().tasks_waiting)
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
    assert len(on_disk(house)) == 1


async def test_an_upload_whose_answer_a_restart_has_lost_is_told_again(
    open_house: Open, open_client: OpenClient, state_dir: Path
) -> None:
    async with open_house() as house, open_client(house) as client:
        path, part_ids = await begun_upload(client)
        async with client.post(f"{path}/complete", json={"part_ids": part_ids}) as answer:
            done = await answer.json()
    async with open_house() as house, open_client(house) as client:
        async with client.post(f"{path}/complete", json={"part_ids": part_ids}) as answer:
            again = await answer.json()
        assert (answer.status, again["file"], again["status"]) == (200, done["file"], "completed")
        assert {**again, "created_at": 0, "expires_at": 0} == {**done, "created_at": 0, "expires_at": 0}
        await client.delete(f"/v1/files/{done['file']['id']}")
        async with client.post(f"{path}/complete", json={"part_ids": part_ids}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "upload_not_found")


async def test_one_caller_leaves_room_for_the_uploads_of_others(
    house: House, client: Client, theirs: openai.AsyncOpenAI
) -> None:
    begun: Any = {"bytes": 4, "filename": "x.txt", "mime_type": "text/plain", "purpose": "user_data"}
    held = [await theirs.uploads.create(**begun) for _ in range(MOST_OPEN)]
    with pytest.raises(openai.RateLimitError) as told:
        await theirs.uploads.create(**begun)
    assert told.value.code == "too_many_open_uploads"
    async with client.post("/v1/uploads", json=begun) as answer:
        assert answer.status == 200  # somebody else's
    await theirs.uploads.cancel(held[0].id)
    await theirs.uploads.create(**begun)


async def begun_upload(client: Client) -> tuple[str, list[str]]:
    """The path of an upload whose parts are there, and their ids."""
    begun = {"bytes": 4, "filename": "x.txt", "mime_type": "text/plain", "purpose": "user_data"}
    async with client.post("/v1/uploads", json=begun) as answer:
        path = f"/v1/uploads/{(await answer.json())['id']}"
    sent = [
        await send(client, field("data", each, "part") + END, path=f"{path}/parts") for each in (b"ab", b"cd")
    ]
    return path, [part["id"] for _, part in sent]


def later(house: House, microseconds: int) -> None:
    """Let the daemon's clock go on."""
    now = house.queries.now
    house.queries.now = lambda: now() + microseconds
    house.commands.files.appending = replace(house.commands.files.appending, now=house.queries.now)


# ---- forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [PURPOSE + FILE + END, FILE + PURPOSE + END, b"hello\r\n" + FILE + PURPOSE + END + b"x"]
)
async def test_fields_may_come_in_any_order(house: House, client: Client, body: bytes) -> None:
    status, file = await send(client, body)
    assert (status, file["purpose"], file["bytes"]) == (200, "batch", len(ROWS))
    assert file["expires_at"] == file["created_at"] + 30 * 86_400  # as OpenAI keeps files for batches


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (PURPOSE + END, 400, "missing_parameter"),
        (FILE + END, 400, "missing_parameter"),
        (FILE + FILE + PURPOSE + END, 400, "invalid_request"),
        (PURPOSE + FILE + FILE + END, 400, "invalid_request"),
        (PURPOSE + PURPOSE + FILE + END, 400, "invalid_request"),
        (field("purpose", b"batch_output") + FILE + END, 400, "invalid_purpose"),
        (FILE + field("purpose", b"assistants") + END, 400, "invalid_purpose"),
        (PURPOSE + field("size", b"1") + FILE + END, 400, "unknown_parameter"),
        (PURPOSE + field("purpose2", b"x" * 5000) + FILE + END, 400, "unknown_parameter"),
        (field("purpose", b"x" * 5000) + FILE + END, 400, "invalid_request"),
        (field("purpose", b"\xff") + FILE + END, 400, "invalid_request"),
        (PURPOSE + field("file", b"", "empty.jsonl") + END, 400, "file_empty"),
        (PURPOSE + field("file", b"x", "n" * 300) + END, 400, "invalid_name"),
        (PURPOSE + field("expires_after[seconds]", b"3600") + FILE + END, 400, "missing_parameter"),
        (PURPOSE + field("expires_after[seconds]", b"3599") + field("expires_after[anchor]", b"created_at") + FILE + END, 400, "invalid_params"),
        (PURPOSE + field("expires_after[seconds]", b"soon") + field("expires_after[anchor]", b"created_at") + FILE + END, 400, "invalid_params"),
        (PURPOSE + field("expires_after[seconds]", b"3600") + field("expires_after[anchor]", b"now") + FILE + END, 400, "invalid_params"),
        (PURPOSE + FILE, 400, "upload_incomplete"),
        (PURPOSE + FILE[:-20], 400, "upload_incomplete"),
        (b"", 400, "invalid_form"),
        (b"no form at all", 400, "invalid_form"),
        (PURPOSE + b"--" + BOUNDARY.encode() + b"\r\nnonsense\r\n\r\n" + END, 400, "invalid_form"),
    ],
)  # fmt: skip
async def test_what_is_no_file_is_refused_and_leaves_nothing(
    house: House, client: Client, body: bytes, status: int, code: str
) -> None:
    head = house.log.head
    answered, refused = await send(client, body)
    assert (answered, refused["error"]["code"]) == (status, code)
    assert house.log.head == head
    assert on_disk(house) == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "multipart/form-data"}, 400, "invalid_form"),
        ({"Content-Type": "application/json"}, 415, "unsupported_media_type"),
        ({**FORM, "Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
    ],
)
async def test_what_is_no_form_is_refused(
    client: Client, headers: dict[str, str], status: int, code: str
) -> None:
    answered, refused = await send(client, iter_of(PURPOSE + FILE + END), headers)
    assert (answered, refused["error"]["code"]) == (status, code)


async def iter_of(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def test_names_have_no_folders_and_may_be_in_any_script(client: Client) -> None:
    for told, name in (
        ("../../etc/passwd", "passwd"),
        ("C:\\\\rows.csv", "rows.csv"),
        ("größe.jsonl", "größe.jsonl"),
    ):
        _, file = await send(client, PURPOSE + field("file", ROWS, told) + END)
        assert file["filename"] == name


async def test_a_repeated_request_makes_one_file(house: House, client: Client) -> None:
    headers = {**FORM, "Idempotency-Key": "k"}
    _, first = await send(client, PURPOSE + FILE + END, headers)
    assert await send(client, PURPOSE + FILE + END, headers) == (200, first)
    status, refused = await send(client, PURPOSE + field("file", b"other", "rows.jsonl") + END, headers)
    assert (status, refused["error"]["code"]) == (422, "idempotency_key_reused")
    assert on_disk(house) == [f"{first['id']}/data.jsonl"]


async def test_too_much_too_little_room_and_silence_are_refused(
    open_house: Open, open_client: OpenClient, until: Until
) -> None:
    async with open_house(max_upload_bytes=1000, upload_stall_s=0.05) as house, open_client(house) as client:
        large = PURPOSE + field("file", b"x" * 1001, "x") + END
        for body in (large, iter_of(large)):
            status, refused = await send(client, body)
            assert (status, refused["error"]["code"]) == (413, "body_too_large")
        begun = {"bytes": 1001, "filename": "x", "mime_type": "", "purpose": "evals"}
        async with client.post("/v1/uploads", json=begun) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (413, "body_too_large")

        async def silent() -> AsyncIterator[bytes]:
            yield PURPOSE + FILE[:-10]
            await anyio.sleep_forever()

        status, refused = await send(client, silent())
        assert (status, refused["error"]["code"]) == (408, "upload_stalled")
        house.commands.files.store.intake.limits = Limits(
            max_bytes=1 << 20, min_free_bytes=1 << 60, stall_s=5
        )
        status, refused = await send(client, PURPOSE + FILE + END)
        assert (status, refused["error"]["code"]) == (507, "disk_full")
        assert on_disk(house) == []


async def test_a_part_is_no_larger_than_openai_takes_and_parts_are_no_more_than_the_file(
    client: Client,
) -> None:
    begun = {"bytes": 4, "filename": "x", "mime_type": "", "purpose": "evals"}
    async with client.post("/v1/uploads", json=begun) as answer:
        path = f"/v1/uploads/{(await answer.json())['id']}/parts"
    status, refused = await send(client, field("data", b"x" * 9, "p") + END, path=path)
    assert (status, refused["error"]["code"]) == (400, "too_many_parts")
    begun["bytes"] = 1 << 30

    async def large() -> AsyncIterator[bytes]:
        yield field("data", b"", "p")[:-2]
        for _ in range(PART_BYTES // (1 << 20) + 1):
            yield bytes(1 << 20)
        yield b"\r\n" + END

    async with client.post("/v1/uploads", json=begun) as answer:
        path = f"/v1/uploads/{(await answer.json())['id']}/parts"
    status, refused = await send(client, large(), path=path)
    assert (status, refused["error"]["code"]) == (413, "body_too_large")


async def test_a_large_file_is_streamed_to_disk_and_not_held_in_memory(house: House, client: Client) -> None:
    size, block = 64 << 20, os.urandom(1 << 18)
    await sent(client)  # what the first upload imports is not of interest
    process = psutil.Process()
    before, highest, done = process.memory_info().rss, 0, asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield field("purpose", b"batch") + field("file", b"", "large.jsonl")[:-2]
        for _ in range(size // len(block)):
            yield block
        yield b"\r\n" + END

    async def watch() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, process.memory_info().rss)
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    status, file = await send(client, body())
    done.set()
    await watching
    assert (status, file["bytes"]) == (200, size)
    # This process is client and server: the buffers of both, and far less than the file.
    assert highest - before < 24 << 20


# ---- content ----------------------------------------------------------------------------------------------


async def test_any_range_is_that_of_the_content(client: Client) -> None:
    chance = random.Random(11)
    content = chance.randbytes(1_000_003)
    path = f"/v1/files/{await sent(client, content)}/content"
    async with client.head(path) as answer:
        assert (answer.status, answer.content_length) == (200, len(content))
        etag = answer.headers["ETag"]
        assert etag == f'"{hashlib.sha256(content).hexdigest()}"'
        assert "rows.jsonl" in answer.headers["Content-Disposition"]
    for _ in range(300):
        start = chance.randrange(len(content))
        stop = min(len(content), start + 1 + chance.randrange(chance.choice((10, 1_000, 600_000))))
        async with client.get(path, headers={"Range": f"bytes={start}-{stop - 1}"}) as answer:
            assert answer.status == 206
            assert await answer.read() == content[start:stop]
    async with client.get(path, headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
    async with client.get(path, headers={"Range": "bytes=2000000-"}) as answer:
        assert answer.status == 416


async def test_content_that_is_gone_or_changed_is_not_sent(house: House, client: Client) -> None:
    file_id = await sent(client)
    stored = anyio.Path(house.config.state_dir / "files" / file_id / "data.jsonl")
    assert await stored.read_bytes() == ROWS
    await stored.unlink()
    async with client.get(f"/v1/files/{file_id}/content") as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (409, "file_unreadable")


async def test_who_may_read_may_not_send_or_delete(house: House, client: Client) -> None:
    file_id = await sent(client)
    headers = {"Authorization": f"Bearer {await token(house, 'read')}"}
    async with Client(house.url, headers=headers) as reader:
        assert (await get(reader, f"/v1/files/{file_id}"))[0] == 200
        assert (await send(reader, PURPOSE + FILE + END))[0] == 403
        async with reader.delete(f"/v1/files/{file_id}") as answer:
            assert answer.status == 403


# ---- what goes --------------------------------------------------------------------------------------------


async def test_an_expired_file_can_be_used_for_nothing_and_goes(
    house: House, client: Client, until: Until
) -> None:
    file_id = await sent(client, purpose=b"batch")
    later(house, 30 * 24 * HOUR_US - HOUR_US)
    assert (await get(client, f"/v1/files/{file_id}"))[0] == 200
    await house.commands.files.expire()
    later(house, HOUR_US)
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
        status, refused = await get(client, path)
        assert (status, refused["error"]["code"]) == (404, "file_expired")
    assert (await get(client, "/v1/files"))[1]["data"] == []
    async with removing(house):
        await house.commands.files.expire()
        await until(lambda: on_disk(house) == [])
    status, refused = await get(client, f"/v1/files/{file_id}")
    assert (status, refused["error"]["code"]) == (404, "file_not_found")
    [gone] = [each for each in await house.log.read(stream=f"file/{file_id}") if each.type == "file.deleted"]
    assert (gone.data["reason"], gone.actor) == ("expired", "retention")


async def test_content_stays_while_a_live_job_reads_it(house: House, client: Client, until: Until) -> None:
    used, other = await sent(client), await sent(client)
    world = await house.commands.appending.board.world()
    path = world.files[used].path
    fact = facts.JobSubmitted(
        kind="fake", name=None, params={}, priority=0, metadata={}, devices=1, validates=False,
        max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None,
        datasets={"dataset": {"name": used, "version": SHA256, "path": path}},
    )  # fmt: skip
    await house.log.execute(lambda world: decisions.submit(world, "job-9", fact, actor="test"))
    async with removing(house):
        for each in (used, other):
            async with client.delete(f"/v1/files/{each}") as answer:
                assert answer.status == 200
        await until(lambda: on_disk(house) == [f"{used}/data.jsonl"])
        await house.commands.cancel("job-9", actor="test")
        await until(lambda: on_disk(house) == [])


async def test_what_a_killed_daemon_left_without_a_name_is_swept(house: House, client: Client) -> None:
    kept = await sent(client)
    left = anyio.Path(house.config.state_dir / "files" / "file-0123456789")
    await left.mkdir()
    await (left / "data.jsonl").write_bytes(ROWS)
    await house.commands.files.sweep()
    assert on_disk(house) == [f"{kept}/data.jsonl"]


async def test_content_stays_whose_event_may_yet_come(
    house: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is cut off while its event is written does not know whether it will be on disk."""
    record = FileCommands._record

    async def cut_off(*args: Any) -> Any:
        await record(*args)
        raise asyncio.CancelledError

    monkeypatch.setattr(FileCommands, "_record", cut_off)
    with pytest.raises(aiohttp.ClientError):
        await sent(client)
    (left,) = on_disk(house)
    await house.commands.files.sweep()
    assert on_disk(house) == [left]
    async with client.get(f"/v1/files/{left.partition('/')[0]}/content") as answer:
        assert await answer.read() == ROWS


async def test_a_part_that_was_moved_while_its_upload_was_given_up_goes_too(
    house: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client.post(
        "/v1/uploads",
        json={
            "purpose": "fine-tune",
            "filename": "rows.jsonl",
            "bytes": len(ROWS),
            "mime_type": "text/jsonl",
        },
    ) as answer:
        upload = (await answer.json())["id"]
    uploads = house.commands.files._uploads
    home = house.config.state_dir / "files" / "uploads" / upload
    rename = Path.rename

    def given_up(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        uploads.find(upload).status = "cancelled"
        return moved

    monkeypatch.setattr(Path, "rename", given_up)
    form = aiohttp.FormData()
    form.add_field("data", ROWS, filename="part")
    async with client.post(f"/v1/uploads/{upload}/parts", data=form) as answer:
        assert answer.status == 409
    assert not home.exists()


async def test_what_a_job_made_is_a_file_of_its_bundle(house: House, client: Client, until: Until) -> None:
    job_id, file_id, output = await made_file(house)
    _, shown = await get(client, f"/v1/files/{file_id}")
    assert (shown["purpose"], shown["filename"], shown["bytes"]) == (
        "batch_output",
        "output.jsonl",
        len(ROWS),
    )
    assert shown["expires_at"] == shown["created_at"] + 30 * 86_400
    async with client.get(f"/v1/files/{file_id}/content", headers={"Range": "bytes=2-10"}) as answer:
        assert (answer.status, await answer.read()) == (206, ROWS[2:11])
    async with client.delete(f"/v1/jobs/{job_id}") as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (409, "file_in_use")
    async with removing(house):
        async with client.delete(f"/v1/files/{file_id}") as answer:
            assert answer.status == 200
        await until(lambda: not output.exists())
    async with client.delete(f"/v1/jobs/{job_id}") as answer:
        assert answer.status == 200


async def test_a_job_may_name_a_file_where_it_may_name_a_dataset(house: House, client: Client) -> None:
    file_id = await sent(client)
    house.queries.registry.job_kind(
        JobKind(name="reading", summary="s", params=FakeParams, entry="m:f", dataset_params=("dataset",))
    )

    async def submit(dataset: str) -> tuple[int, dict[str, Any]]:
        body = {"kind": "reading", "params": {"dataset": dataset}}
        async with client.post("/v1/jobs", json=body) as answer:
            return answer.status, await answer.json()

    status, job = await submit(f"file:{file_id}")
    assert status == 201
    stored = str(house.config.state_dir / "files" / file_id / "data.jsonl")
    assert job["datasets"] == {"dataset": {"name": file_id, "version": SHA256, "path": stored}}
    status, refused = await submit("file:file-0000000000")
    assert (status, refused["error"]["code"], refused["error"]["param"]) == (
        400,
        "file_not_found",
        "params.dataset",
    )
    await house.commands.files.delete(file_id, actor="test")
    await house.commands.cancel(job["id"], actor="test")
    async with client.post(f"/v1/jobs/{job['id']}/retry", json={}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "file_not_found")
