"""Datasets over the real sockets: streamed in, named, looked into, deleted; and everything that is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import psutil
import pytest

from finetuned import followers
from finetuned.commands.appending import Appending
from finetuned.datasets import preview
from finetuned.datasets.store import DatasetStore
from finetuned.domain import decisions, facts
from finetuned.looking import THREADS, AbandonedError
from finetuned.storage.intake import Limits
from finetuned.testing import House
from finetuned_sdk import JobKind
from finetuned_sdk.fake import FakeParams

from .conftest import Open, OpenClient, Until

ROWS = b'{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n'
SHA256 = hashlib.sha256(ROWS).hexdigest()
Client = aiohttp.ClientSession


async def upload(
    client: Client, body: Any, name: str = "colours", *, headers: Any = None, **query: str
) -> tuple[int, dict[str, Any]]:
    params = {"name": name, **query}
    async with client.post("/v1/datasets", params=params, data=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def get(client: Client, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path, params=query) as answer:
        return answer.status, await answer.json()


async def delete(client: Client, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    async with client.delete(path, params=query) as answer:
        return answer.status, await answer.json()


def files(house: House) -> list[str]:
    """The files of the store, those on their way too."""
    store = house.config.state_dir / "datasets"
    # Not rglob: it fails where a directory goes while it looks.
    found = (Path(folder, name) for folder, _, names in os.walk(store) for name in names)
    return sorted(str(path.relative_to(store)) for path in found)


async def streamed(total: int, chunk: bytes) -> AsyncIterator[bytes]:
    for _ in range(total // len(chunk)):
        yield chunk


async def settled(house: House) -> None:
    """Wait until the follower has seen everything."""
    head = house.log.head
    with anyio.fail_after(20):
        while await house.log.position(followers.DatasetRemover.name) < head:  # noqa: ASYNC110 - no event comes
            await anyio.sleep(0.01)


@asynccontextmanager
async def removing(house: House) -> AsyncIterator[None]:
    """The follower that removes files, at work."""
    remover = followers.DatasetRemover(house.commands.datasets)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(followers.follow, house.log, remover)
        yield
        tasks.cancel_scope.cancel()


async def test_an_upload_is_a_version_that_can_be_listed_and_shown(house: House, client: Client) -> None:
    status, dataset = await upload(client, ROWS)
    assert status == 201
    assert (dataset["id"], dataset["version"], dataset["rows"]) == ("colours", SHA256, 2)
    assert (dataset["format"], dataset["bytes"], dataset["reference"]) == (
        "jsonl",
        len(ROWS),
        "dataset:colours",
    )
    assert files(house) == [f"{SHA256}/data.jsonl"]
    assert await anyio.Path(dataset["versions"][0]["path"]).read_bytes() == ROWS
    assert (await get(client, "/v1/datasets"))[1]["data"] == [dataset]
    assert await get(client, "/v1/datasets/colours") == (200, dataset)


async def test_the_same_again_changes_nothing_and_other_content_is_the_newest_version(
    house: House, client: Client
) -> None:
    _, first = await upload(client, ROWS)
    head = house.log.head
    assert await upload(client, ROWS) == (200, first)
    assert house.log.head == head
    status, second = await upload(client, ROWS * 2)
    assert status == 201
    assert [each["rows"] for each in second["versions"]] == [4, 2]
    status, again = await upload(client, ROWS)  # known, and the newest from now on
    assert status == 200
    assert [each["version"] for each in again["versions"]] == [SHA256, second["version"]]
    status, _ = await upload(client, ROWS, "others")
    assert status == 201
    assert len(files(house)) == 2  # each content once


async def test_the_path_to_register_is_no_dataset(client: Client) -> None:
    async with client.get("/v1/datasets/register") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    status, answer_of_upload = await upload(client, ROWS, "register")
    assert (status, answer_of_upload["error"]["code"]) == (400, "invalid_name")


async def test_datasets_are_listed_in_pages(client: Client) -> None:
    for name in ("c", "a", "b"):
        await upload(client, ROWS, name)
    _, page = await get(client, "/v1/datasets", limit="2")
    assert [each["id"] for each in page["data"]] == ["a", "b"]
    assert page["has_more"]
    _, page = await get(client, "/v1/datasets", after=page["next_after"])
    assert [each["id"] for each in page["data"]] == ["c"]
    assert not page["has_more"]


async def test_a_large_body_is_streamed_to_disk_and_not_held_in_memory(house: House, client: Client) -> None:
    line = b'{"text": "' + b"x" * 1011 + b'"}\n'  # a KiB
    chunk = line * 256
    size = 64 << 20
    await upload(client, ROWS, "before")  # what the first upload imports is not of interest
    process = psutil.Process()
    before, highest, done = process.memory_info().rss, 0, asyncio.Event()

    async def watch() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, process.memory_info().rss)
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    status, dataset = await upload(client, streamed(size, chunk))
    done.set()
    await watching
    assert status == 201
    assert (dataset["bytes"], dataset["rows"]) == (size, size >> 10)
    # This process is client and server: the buffers of both, and far less than the body.
    assert highest - before < size // 2
    assert dataset["version"] == hashlib.sha256(line * (size >> 10)).hexdigest()


async def test_a_client_that_goes_away_leaves_nothing(house: House, until: Until) -> None:
    _reader, writer = await asyncio.open_unix_connection(house.addresses.socket)
    writer.write(
        b"POST /v1/datasets?name=colours HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + ROWS
    )
    await writer.drain()
    await until(lambda: [name for name in files(house) if name.startswith("incoming/")])
    writer.close()
    await writer.wait_closed()
    await until(lambda: files(house) == [])
    assert await house.queries.datasets.listed() == ([], False)


async def test_an_upload_that_stalls_is_cut(open_house: Open) -> None:
    async with open_house(upload_stall_s=0.2) as house:
        reader, writer = await asyncio.open_unix_connection(house.addresses.socket)
        writer.write(
            b"POST /v1/datasets?name=colours HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" + ROWS
        )
        answer = await reader.readuntil(b"}}")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code":"upload_stalled"' in answer
        assert b"send the file again" in answer
        assert files(house) == []
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("announced", [True, False])
async def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(
    open_house: Open, open_client: OpenClient, announced: bool
) -> None:
    async with open_house(max_upload_bytes=2 << 20) as house, open_client(house) as client:
        body = io.BytesIO(ROWS * 60_000) if announced else streamed(4 << 20, ROWS * 1000)
        status, answer = await upload(client, body)
        assert (status, answer["error"]["code"]) == (413, "body_too_large")
        assert "max_upload_bytes" in answer["error"]["message"]
        assert files(house) == []


@pytest.mark.parametrize("announced", [True, False])
async def test_a_disk_that_fills_up_ends_the_upload_and_leaves_nothing(
    house: House, client: Client, announced: bool
) -> None:
    body = io.BytesIO(ROWS * 60_000) if announced else streamed(8 << 20, ROWS * 1000)
    left = iter(
        range(4 << 20, 0, -1 << 20)
    )  # so a body that does not tell its size is refused at a late block
    store = house.commands.datasets.store
    house.commands.datasets.store = DatasetStore(
        store.directory,
        Limits(max_bytes=1 << 30, min_free_bytes=1 << 20, stall_s=5),
        free=lambda _: next(left, 0),
    )
    status, answer = await upload(client, body)
    assert (status, answer["error"]["code"]) == (507, "disk_full")
    assert "free some space" in answer["error"]["message"]
    assert files(house) == []


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_a_hash_that_was_announced_is_compared(house: House, client: Client) -> None:
    good = {"Content-Digest": f"sha-512=:AAAA:, {digest(ROWS)}"}
    assert (await upload(client, ROWS, headers=good, sha256=SHA256.upper()))[0] == 201
    for wrong in ({"headers": {"Content-Digest": digest(b"else")}}, {"sha256": "0" * 64}):
        status, answer = await upload(client, ROWS * 2, **wrong)
        assert (status, answer["error"]["code"]) == (400, "digest_mismatch")
        assert "Send it again" in answer["error"]["message"]
    for broken in ("sha-256=:AAAA:", "sha-256=nothing"):
        status, answer = await upload(client, ROWS * 2, headers={"Content-Digest": broken})
        assert (status, answer["error"]["param"]) == (400, "Content-Digest")
    assert files(house) == [f"{SHA256}/data.jsonl"]


@pytest.mark.parametrize(
    ("body", "query", "headers", "status", "code", "remedy"),
    [
        (b"", {}, {}, 400, "dataset_empty", "send one that has"),
        (b'{"a": "\xe9"}\n', {}, {}, 400, "dataset_not_utf8", "save it as UTF-8"),
        (b"hello", {}, {}, 400, "dataset_format_unknown", "format="),
        (ROWS, {"format": "csvv"}, {}, 400, "invalid_request", "Did you mean 'csv'?"),
        (ROWS, {"format": "parquet"}, {}, 400, "dataset_format_mismatch", "Name the right format"),
        (ROWS, {"name": "a/b"}, {}, 400, "invalid_name", "letters, digits"),
        (ROWS, {"sha256": "12"}, {}, 400, "invalid_request", "sha256"),
        (ROWS, {}, {"Content-Encoding": "gzip"}, 415, "unsupported_media_type", "send the file as it is"),
        (ROWS, {}, {"Content-Type": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type", "-T FILE"),
    ],
)  # fmt: skip
async def test_what_cannot_be_taken_is_refused_with_the_remedy_and_leaves_nothing(
    house: House, client: Client, body: bytes, query: dict[str, str], headers: dict[str, str], status: int,
    code: str, remedy: str,
) -> None:  # fmt: skip
    if "Content-Encoding" in headers:
        import gzip

        body = gzip.compress(body)
    got, answer = await upload(client, body, headers=headers, **query)
    assert (got, answer["error"]["code"]) == (status, code)
    assert remedy in answer["error"]["message"]
    assert files(house) == []


async def test_a_key_makes_a_repeated_upload_one_and_belongs_to_its_content(client: Client) -> None:
    key = {"Idempotency-Key": "k-1"}
    _, first = await upload(client, ROWS, headers=key)
    await upload(client, ROWS * 2)
    async with client.post(
        "/v1/datasets", params={"name": "colours"}, data=ROWS, headers=key
    ) as answer_again:
        assert answer_again.headers["Idempotency-Replayed"] == "true"
        repeated = await answer_again.json()
    assert repeated["version"] != first["version"]  # carried out once: it did not become the newest again
    status, answer = await upload(client, ROWS * 3, headers=key)
    assert (status, answer["error"]["code"]) == (422, "idempotency_key_reused")


async def test_rows_are_shown_in_pages_and_by_version(client: Client) -> None:
    _, first = await upload(client, ROWS)
    await upload(client, b"prompt,completion\nx,y\n")
    _, page = await get(client, "/v1/datasets/colours/preview")
    assert (page["format"], page["data"]) == (
        "csv",
        [{"row": 2, "value": {"prompt": "x", "completion": "y"}, "cut": False, "problem": None}],
    )
    _, page = await get(client, "/v1/datasets/colours/preview", version=first["version"][:8], rows="1")
    assert [each["row"] for each in page["data"]] == [1]
    assert page["has_more"]
    _, page = await get(
        client,
        "/v1/datasets/colours/preview",
        version=first["version"][:8],
        after=page["next_after"],
    )
    assert [each["value"]["prompt"] for each in page["data"]] == ["c"]
    assert not page["has_more"]


async def test_the_file_comes_back_whole_and_in_parts(client: Client) -> None:
    _, dataset = await upload(client, ROWS)
    await upload(client, ROWS * 2)
    path = "/v1/datasets/colours/content"
    async with client.get(path, params={"version": dataset["version"]}) as answer:
        assert (answer.status, await answer.read()) == (200, ROWS)
        assert answer.headers["ETag"] == f'"{SHA256}"'
        assert "colours.jsonl" in answer.headers["Content-Disposition"]
    async with client.get(path, headers={"Range": "bytes=5-9"}) as answer:
        assert (answer.status, await answer.read()) == (206, ROWS[5:10])
    async with client.head(path) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(2 * len(ROWS)))


async def test_a_registered_file_that_changed_is_not_sent_as_what_it_was(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    async with client.post("/v1/datasets/register", json={"name": "colours", "path": str(path)}) as answer:
        assert answer.status == 201
    path.write_bytes(ROWS * 2)
    for kind in ("content", "preview"):
        status, refused = await get(client, f"/v1/datasets/colours/{kind}")
        assert (status, refused["error"]["code"]) == (409, "dataset_changed")
        assert "register it again" in refused["error"]["message"]


async def registered(client: Client, path: Path) -> None:
    async with client.post("/v1/datasets/register", json={"name": "colours", "path": str(path)}) as answer:
        assert answer.status == 201


def written(path: Path, _other: Path) -> None:
    path.write_bytes(ROWS.swapcase())


def replaced(path: Path, other: Path) -> None:
    other.rename(path)


def a_link(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def a_linked_folder(path: Path, other: Path) -> None:
    path.parent.rename(other.parent / "aside")
    path.parent.symlink_to("aside")


@pytest.mark.parametrize("change", [written, replaced, a_link, a_linked_folder])
async def test_another_file_of_the_same_size_is_not_shown_and_no_job_is_given_it(
    house: House, client: Client, tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    path, other = tmp_path / "theirs" / "rows.jsonl", tmp_path / "other.jsonl"
    path.parent.mkdir()
    path.write_bytes(ROWS)
    other.write_bytes(ROWS.swapcase())
    await registered(client, path)
    before = path.stat()
    change(path, other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # its owner may pretend
    for kind in ("content", "preview"):
        status, refused = await get(client, f"/v1/datasets/colours/{kind}")
        assert status == 409
        assert refused["error"]["code"] in {"dataset_changed", "dataset_unreadable"}
        assert "register it again" in refused["error"]["message"]
    house.commands.registry.job_kind(
        JobKind(name="reading", summary="", params=FakeParams, entry="none:none", dataset_params=("dataset",))
    )
    job = {"kind": "reading", "params": {"dataset": "dataset:colours"}}
    async with client.post("/v1/jobs", json=job) as answer:
        refused = await answer.json()
        assert (answer.status, refused["error"]["code"][:8]) == (409, "dataset_")


async def test_a_touched_file_can_be_registered_again(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    await registered(client, path)
    path.touch()
    assert (await get(client, "/v1/datasets/colours/preview"))[0] == 409
    body = {"name": "colours", "path": str(path)}
    async with client.post("/v1/datasets/register", json=body) as answer:
        assert answer.status == 200
    assert (await get(client, "/v1/datasets/colours/preview"))[0] == 200


async def test_a_path_through_a_link_cannot_be_registered(client: Client, tmp_path: Path) -> None:
    real = tmp_path / "rows.jsonl"
    real.write_bytes(ROWS)
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(real)
    for path in (tmp_path / "folder" / "rows.jsonl", tmp_path / "link.jsonl"):
        body = {"name": "colours", "path": str(path)}
        async with client.post("/v1/datasets/register", json=body) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (400, "dataset_unreadable")
            assert f"the file is {real}" in error["message"]


@pytest.mark.parametrize(
    ("path", "query", "status", "remedy"),
    [
        ("/v1/datasets/colour", {}, 404, "Did you mean 'colours'?"),
        ("/v1/datasets/colours/preview", {"version": "00000000"}, 404, "it has "),
        ("/v1/datasets/colours/preview", {"version": "0"}, 400, "at least 8 digits"),
        ("/v1/datasets/colours/preview", {"rows": "0"}, 400, "from 1 to 100"),
        ("/v1/datasets/colours/preview", {"after": "x"}, 400, "next_after"),
        ("/v1/datasets/nothing/audits", {}, 404, "finetune datasets"),
    ],
)
async def test_what_is_not_there_is_refused_with_the_remedy(
    client: Client, path: str, query: dict[str, str], status: int, remedy: str
) -> None:
    await upload(client, ROWS)
    got, answer = await get(client, path, **query)
    assert got == status
    assert remedy in answer["error"]["message"]


async def test_a_file_on_the_server_is_named_and_stays_where_it_is(
    house: House, client: Client, tmp_path: Path, until: Until
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\na,b\n")
    body = {"name": "colours", "path": str(path)}
    async with client.post("/v1/datasets/register", json=body) as answer:
        assert answer.status == 201
        dataset = await answer.json()
    assert dataset["versions"][0]["source"] == "path"
    assert (dataset["versions"][0]["path"], dataset["rows"]) == (str(path), 1)
    async with client.post("/v1/datasets/register", json=body) as answer:
        assert answer.status == 200
    assert files(house) == []
    async with removing(house):
        await delete(client, "/v1/datasets/colours")
        await upload(client, ROWS, "other")
        await delete(client, "/v1/datasets/other")
        await until(lambda: files(house) == [])
    assert path.is_file()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, "dataset_unreadable"),
        (lambda path: path.mkdir(), "dataset_unreadable"),
        (os.mkfifo, "dataset_unreadable"),
        (lambda path: path.write_bytes(b"\n"), "dataset_empty"),
    ],
)
async def test_what_is_no_file_of_rows_cannot_be_registered(
    client: Client, tmp_path: Path, make: Any, code: str
) -> None:
    make(tmp_path / "rows.jsonl")
    body = {"name": "colours", "path": str(tmp_path / "rows.jsonl"), "format": "jsonl"}
    async with client.post("/v1/datasets/register", json=body) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, code)


async def test_who_may_not_name_paths_may_not_register_one(house: House, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    _token, secret = await house.commands.tokens.create(scope="operate", name=None, actor="test")
    async with aiohttp.ClientSession(house.url, headers={"Authorization": f"Bearer {secret}"}) as client:
        for path in (str(tmp_path / "rows.jsonl"), str(tmp_path / "missing")):
            async with client.post("/v1/datasets/register", json={"name": "colours", "path": path}) as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["code"]) == (403, "path_not_allowed")
        assert (await upload(client, ROWS))[0] == 201


async def test_files_go_with_the_last_name_of_their_content(
    house: House, client: Client, until: Until
) -> None:
    await upload(client, ROWS, "one")
    await upload(client, ROWS, "two")
    await upload(client, ROWS * 2, "two")
    async with removing(house):
        assert (await delete(client, "/v1/datasets/one"))[1] == {
            "id": "one", "object": "dataset", "deleted": True,
        }  # fmt: skip
        assert (await get(client, "/v1/datasets/one"))[0] == 404
        await settled(house)
        assert len(files(house)) == 2
        status, answer = await delete(client, "/v1/datasets/two", version=SHA256[:8])
        assert (status, answer["id"]) == (200, f"two@{SHA256}")
        await until(lambda: len(files(house)) == 1)
        await delete(client, "/v1/datasets/two")
        await until(lambda: files(house) == [])
    assert (await delete(client, "/v1/datasets/two"))[0] == 404


async def test_whatever_is_uploaded_and_deleted_at_once_each_version_has_its_file(
    house: House, client: Client
) -> None:
    """A file is never removed between the upload that found it there and the event that names it."""
    contents = [ROWS * count for count in (1, 2, 3)]

    async def churn(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(25):
            name = choose.choice("abc")
            if choose.random() < 0.5:
                assert (await upload(client, choose.choice(contents), name))[0] in {200, 201}
            else:
                assert (await delete(client, f"/v1/datasets/{name}"))[0] in {200, 404}

    async with removing(house):
        async with anyio.create_task_group() as tasks:
            for seed in range(6):
                tasks.start_soon(churn, seed)
        await settled(house)
    datasets, _ = await house.queries.datasets.listed()
    named = {version.path for dataset in datasets for version in dataset.versions}
    assert {str(house.config.state_dir / "datasets" / each) for each in files(house)} == named
    assert (await house.commands.rebuild_log()).equal


async def test_nothing_is_removed_while_a_file_waits_for_its_event(
    house: House, client: Client, until: Until
) -> None:
    await upload(client, ROWS)
    datasets = house.commands.datasets
    async with removing(house):
        async with datasets.store.changing:  # as an upload does that found the file there
            await delete(client, "/v1/datasets/colours")
            await until(lambda: datasets.store.changing.statistics().tasks_waiting)
            assert files(house) == [f"{SHA256}/data.jsonl"]
        await until(lambda: files(house) == [])

    events = house.log

    class Watching:
        async def execute(self, decide: Any, *, necessary: bool) -> Any:
            held.append(datasets.store.changing.statistics().locked)
            return await events.execute(decide, necessary=necessary)

    held: list[bool] = []
    datasets.appending = Appending(Watching(), house.commands.appending.board)  # type: ignore[arg-type]
    await upload(client, ROWS)
    assert held == [True]


async def test_a_live_job_keeps_its_files_until_it_ends(house: House, client: Client, until: Until) -> None:
    _, dataset = await upload(client, ROWS)
    used = {"name": "colours", "version": SHA256, "path": dataset["versions"][0]["path"]}
    fact = facts.JobSubmitted(
        kind="fake", name=None, params={}, priority=0, metadata={}, devices=1, validates=False, max_attempts=3,
        models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None, datasets={"dataset": used},
    )  # fmt: skip
    await house.log.execute(lambda world: decisions.submit(world, "job-1", fact, actor="test"))
    async with removing(house):
        await delete(client, "/v1/datasets/colours")
        await settled(house)
        assert files(house) == [f"{SHA256}/data.jsonl"]
        # Its name is gone, so a new job cannot have it.
        async with client.post("/v1/jobs/job-1/cancel") as answer:
            assert answer.status == 200
        await until(lambda: files(house) == [])


async def test_what_half_an_upload_of_an_earlier_daemon_left_is_swept_at_the_start(
    state_dir: Path, open_house: Open
) -> None:
    incoming = state_dir / "datasets" / "incoming"
    incoming.mkdir(parents=True)
    (incoming / "left.part").write_bytes(b"half")
    async with open_house() as house:
        assert files(house) == []


async def test_audits_are_found_by_content_whatever_path_a_job_read_it_by(
    house: House, client: Client
) -> None:
    await upload(client, ROWS)
    job = await house.accept_job()
    await house.start_attempt()
    report = {"dataset": "/elsewhere/rows.jsonl", "sha256": SHA256, "rows": 2}
    await house.report(job, facts.DatasetAudited(report=report))
    await house.report(job, facts.DatasetAudited(report={**report, "sha256": "0" * 64}))
    await upload(client, ROWS, "same")
    for name in ("colours", "same"):
        _, page = await get(client, f"/v1/datasets/{name}/audits")
        (audit,) = page["data"]
        assert (audit["job"], audit["version"], audit["report"]) == (job, SHA256, report)


async def test_an_audit_of_an_unknown_kind_or_dataset_is_refused(client: Client) -> None:
    await upload(client, ROWS)
    for name, code, status in (("colours", "unknown_kind", 400), ("colour", "not_found", 404)):
        async with client.post(f"/v1/datasets/{name}/audit", json={"model": "m"}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)


async def test_previews_hold_up_nobody_else_and_are_given_up_when_their_clients_go(
    house: House,
    client: Client,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_work, given_up, done = [0], [0], threading.Event()

    def endless(*_: Any, check: Callable[[], None], **__: Any) -> None:
        at_work[0] += 1
        try:
            while not done.wait(0.01):
                check()
        except AbandonedError:
            given_up[0] += 1
            raise

    await upload(client, ROWS)
    monkeypatch.setattr(preview, "read", endless)
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(get, client, "/v1/datasets/colours/preview")
            await until(lambda: at_work[0] == THREADS)
            async with client.post("/v1/jobs", json={"kind": "fake"}) as answer:
                assert answer.status == 201
            assert at_work[0] == THREADS
            tasks.cancel_scope.cancel()
        await until(lambda: given_up[0] >= THREADS and given_up[0] == at_work[0])
    finally:
        done.set()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
