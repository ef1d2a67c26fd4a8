"""What a job left on disk: listed, downloaded in whole and in part, and never anything else of the disk."""

from __future__ import annotations

import io
import os
import random
import select
import socket
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from finetuned import views
from finetuned.domain import facts
from finetuned_sdk import manifest

WEIGHTS = random.Random(1).randbytes(700_000)
FILES = {"config.json": b'{"a": 1}', "weights/part 1.safetensors": WEIGHTS, "empty": b""}


async def running_job(house: Any) -> str:
    job_id: str = await house.accept_job()
    await house.start_attempt()
    await house.report(job_id, facts.AttemptStarted(attempt=1))
    return job_id


def directory_of(house: Any, job_id: str, attempt: int = 1) -> Path:
    directory: Path = house.jobs_dir / job_id / "attempts" / str(attempt) / "artifacts"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


async def publish(
    house: Any, job_id: str, name: str, files: dict[str, bytes] | bytes, *, attempt: int = 1
) -> Path:
    """As a worker does it: the files, their manifest, then the fact."""
    root = directory_of(house, job_id, attempt) / name
    if isinstance(files, bytes):
        root.write_bytes(files)
    else:
        for path, data in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    content = manifest.seal(root, kind="model")
    await house.report(
        job_id,
        facts.ArtifactPublished(
            attempt=attempt, name=name, kind="model", path=str(root), bytes=content.total_bytes
        ),
    )
    return root


@pytest.fixture(name="job")
async def job_with_a_model(house: Any) -> str:
    job_id = await running_job(house)
    await publish(house, job_id, "model", FILES)
    return job_id


async def document(client: Any, path: str, status: int = 200) -> Any:
    async with client.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def refusal(client: Any, path: str, status: int, code: str) -> str:
    error = (await document(client, path, status))["error"]
    assert error["code"] == code
    message: str = error["message"]
    return message


# ---- lists -----------------------------------------------------------------------------------------------


async def test_checkpoints_say_their_step_attempt_size_and_time(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    saved = facts.CheckpointSaved(
        attempt=1, step=4, path="/x/checkpoint-4", bytes=12, metrics={"eval_loss": 0.5}
    )
    (event,) = await house.report(job_id, saved)
    page = await document(client, f"/v1/jobs/{job_id}/checkpoints")
    (found,) = page["data"]
    created_at = found.pop("created_at")
    assert created_at == views.time(event.at)
    assert found == {
        "id": "1/checkpoint-4",
        "object": "checkpoint",
        "step": 4,
        "attempt": 1,
        "path": "/x/checkpoint-4",
        "bytes": 12,
        "metrics": {"eval_loss": 0.5},
        "validity": "damaged",
        "problem": "/x/checkpoint-4 has no manifest: it was never finished.",
        "resumes": False,
    }


async def test_a_discarded_checkpoint_is_listed_no_more(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    await house.report(
        job_id,
        facts.CheckpointSaved(attempt=1, step=4, path="/x/checkpoint-4", bytes=12),
        facts.CheckpointDiscarded(path="/x/checkpoint-4"),
    )
    assert (await document(client, f"/v1/jobs/{job_id}/checkpoints"))["data"] == []


async def test_artifacts_are_listed_and_show_their_files_with_size_and_checksum(
    client: Any, job: str
) -> None:
    (listed,) = (await document(client, f"/v1/jobs/{job}/artifacts"))["data"]
    assert (listed["id"], listed["kind"], listed["bytes"]) == ("model", "model", 700_008)
    shown = await document(client, f"/v1/jobs/{job}/artifacts/model")
    assert {
        **listed,
        "files": shown["files"],
        "has_more": False,
        "next_after": "weights/part 1.safetensors",
    } == shown
    assert {each["path"]: (each["bytes"], each["crc32"]) for each in shown["files"]} == {
        path: (len(data), zlib.crc32(data)) for path, data in FILES.items()
    }


async def test_the_files_of_an_artifact_come_in_pages(client: Any, job: str) -> None:
    first = await document(client, f"/v1/jobs/{job}/artifacts/model?limit=2")
    assert first["has_more"]
    second = await document(client, f"/v1/jobs/{job}/artifacts/model?limit=2&after={first['next_after']}")
    assert not second["has_more"]
    assert {each["path"] for each in first["files"] + second["files"]} == set(FILES)


async def test_of_two_artifacts_of_one_name_the_newest_is_meant_unless_an_attempt_is_named(
    house: Any, client: Any
) -> None:
    job_id = await running_job(house)
    await publish(house, job_id, "report.txt", b"first")
    await house.end_attempt(job_id, error=True)
    await house.start_attempt()
    await publish(house, job_id, "report.txt", b"second", attempt=2)
    base = f"/v1/jobs/{job_id}/artifacts/report.txt/files/report.txt"
    for query, expected in (("", b"second"), ("?attempt=1", b"first"), ("?attempt=2", b"second")):
        async with client.get(base + query) as response:
            assert await response.read() == expected


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("artifacts/nothing", "it has model"),
        ("artifacts/model?attempt=7", "of attempt 7"),
        ("artifacts/model/files/nothing", "lists its files"),
        ("artifacts/model?after=nothing", "lists its files"),
        ("artifacts/nothing/archive", "it has model"),
    ],
)
async def test_what_is_not_there_is_refused_with_what_is(
    client: Any, job: str, path: str, named: str
) -> None:
    assert named in await refusal(client, f"/v1/jobs/{job}/{path}", 404, "not_found")


# ---- downloads -------------------------------------------------------------------------------------------


def urls(job: str) -> dict[str, str]:
    base = f"/v1/jobs/{job}/artifacts/model"
    return {"file": f"{base}/files/weights/part%201.safetensors", "archive": f"{base}/archive"}


async def test_a_file_comes_as_it_is_and_is_never_shown_by_a_browser(client: Any, job: str) -> None:
    async with client.get(urls(job)["file"]) as response:
        assert await response.read() == WEIGHTS
        assert response.headers["Content-Length"] == "700000"
        assert response.content_type == "application/octet-stream"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Disposition"] == (
            "attachment; filename=\"part 1.safetensors\"; filename*=UTF-8''part%201.safetensors"
        )


async def test_an_archive_holds_every_file_below_the_name_of_the_artifact(client: Any, job: str) -> None:
    async with client.get(urls(job)["archive"]) as response:
        body = await response.read()
        assert len(body) == int(response.headers["Content-Length"])
        assert 'filename="model.zip"' in response.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(body)) as opened:
        assert opened.testzip() is None
        assert {each: opened.read(each) for each in opened.namelist()} == {
            f"model/{path}": data for path, data in FILES.items()
        }


async def test_a_single_file_is_an_artifact_and_an_archive_too(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    await publish(house, job_id, "report.txt", b"all well")
    async with client.get(f"/v1/jobs/{job_id}/artifacts/report.txt/files/report.txt") as response:
        assert await response.read() == b"all well"
    async with client.get(f"/v1/jobs/{job_id}/artifacts/report.txt/archive") as response:
        with zipfile.ZipFile(io.BytesIO(await response.read())) as opened:
            assert opened.read("report.txt") == b"all well"


@pytest.mark.parametrize("what", ["file", "archive"])
async def test_any_range_is_what_the_whole_has_there(client: Any, job: str, what: str) -> None:
    url = urls(job)[what]
    async with client.get(url) as response:
        whole, etag = await response.read(), response.headers["ETag"]
    chance = random.Random(4)
    for _ in range(25):
        first, last = sorted(chance.sample(range(len(whole)), 2))
        headers = {"Range": f"bytes={first}-{last}", "If-Range": etag}
        async with client.get(url, headers=headers) as response:
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
            assert response.headers["ETag"] == etag
            assert await response.read() == whole[first : last + 1]


@pytest.mark.parametrize("what", ["file", "archive"])
async def test_a_range_of_another_version_gets_the_whole(client: Any, job: str, what: str) -> None:
    async with client.get(
        urls(job)[what], headers={"Range": "bytes=0-3", "If-Range": '"another"'}
    ) as response:
        assert response.status == 200
        assert len(await response.read()) == int(response.headers["Content-Length"]) > 4


@pytest.mark.parametrize("what", ["file", "archive"])
async def test_a_file_that_changed_at_the_same_size_has_another_tag(
    house: Any, client: Any, what: str
) -> None:
    job_id = await house.accept_job()
    await publish(house, job_id, "report.txt", b"all well")
    url = f"/v1/jobs/{job_id}/artifacts/report.txt/" + {"file": "files/report.txt"}.get(what, what)
    async with client.get(url) as response:
        etag = response.headers["ETag"]
    (path,) = house.config.state_dir.rglob("artifacts/report.txt")
    before = path.stat()
    path.write_bytes(b"all lost")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    async with client.get(url, headers={"If-None-Match": etag}) as response:
        assert response.status == 200
        assert b"all lost" in await response.read()
    async with client.get(url, headers={"Range": "bytes=0-3", "If-Range": etag}) as response:
        assert (response.status, response.headers["ETag"] == etag) == (200, False)


@pytest.mark.parametrize("what", ["file", "archive"])
async def test_a_range_behind_the_end_is_refused_with_the_size(client: Any, job: str, what: str) -> None:
    async with client.get(urls(job)[what], headers={"Range": "bytes=99999999-"}) as response:
        assert response.status == 416
        error = (await response.json())["error"]
        size = int(response.headers["Content-Range"].removeprefix("bytes */"))
        assert size >= 700_000
        assert (error["code"], f"from 0 to {size - 1}" in error["message"]) == ("range_not_satisfiable", True)


@pytest.mark.parametrize("what", ["file", "archive"])
async def test_head_tells_the_size_and_sends_nothing(client: Any, job: str, what: str) -> None:
    async with client.get(urls(job)[what]) as response:
        told = {name: response.headers[name] for name in ("Content-Length", "ETag", "Accept-Ranges")}
    async with client.head(urls(job)[what]) as response:
        assert response.status == 200
        assert {name: response.headers[name] for name in told} == told
        assert await response.read() == b""


@pytest.mark.parametrize("what", ["file", "archive"])
async def test_what_a_client_has_is_not_sent_again(client: Any, job: str, what: str) -> None:
    async with client.head(urls(job)[what]) as response:
        etag = response.headers["ETag"]
    async with client.get(urls(job)[what], headers={"If-None-Match": etag}) as response:
        assert (response.status, await response.read()) == (304, b"")


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other side closed, seen without taking anything off the connection."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


async def test_a_client_that_takes_nothing_is_cut(open_house: Any, until: Any) -> None:
    async with open_house(sse_write_timeout_s=0.2) as house:
        job_id = await running_job(house)
        root = directory_of(house, job_id) / "huge"
        await publish_sparse(house, job_id, root, 64 << 20)
        stream = await anyio.connect_unix(house.addresses.socket)
        async with stream:
            path = f"/v1/jobs/{job_id}/artifacts/huge/files/huge"
            await stream.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await stream.receive(100)  # the answer has begun; nothing more is taken until it ends
            raw = stream.extra(SocketAttribute.raw_socket)
            await until(lambda: has_hung_up(raw))
            assert await everything(stream) < 64 << 20


async def everything(stream: anyio.abc.SocketStream) -> int:
    """How many bytes are left to take."""
    received = 0
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            received += len(await stream.receive())
    return received


async def publish_sparse(house: Any, job_id: str, root: Path, size: int) -> None:
    """A file of zeros that takes no disk."""
    with root.open("wb") as file:
        file.truncate(size)
    manifest.seal(root)
    await house.report(
        job_id,
        facts.ArtifactPublished(attempt=1, name=root.name, kind="model", path=str(root), bytes=size),
    )


async def test_a_file_whose_name_is_not_utf8_can_be_had_like_others(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    await publish(house, job_id, "model", {os.fsdecode(b"odd\xff.bin"): b"odd", "plain": b"plain"})
    base = f"/v1/jobs/{job_id}/artifacts/model"
    (odd, _) = (await document(client, base))["files"]
    assert odd["path"] == "odd\N{REPLACEMENT CHARACTER}.bin"
    async with client.get(f"{base}/files/{odd['path']}") as response:
        assert await response.read() == b"odd"
    async with client.get(f"{base}/archive") as response:
        with zipfile.ZipFile(io.BytesIO(await response.read())) as opened:
            assert sorted(opened.read(each) for each in opened.infolist()) == [b"odd", b"plain"]


# ---- what is not as it was published -----------------------------------------------------------------------


def make_shorter(file: Path, _secret: Path) -> None:
    os.truncate(file, 5)


def remove(file: Path, _secret: Path) -> None:
    file.unlink()


def link(file: Path, secret: Path) -> None:
    file.unlink()
    file.symlink_to(secret)


def fifo(file: Path, _secret: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link_the_folder(file: Path, secret: Path) -> None:
    (file.parent / "part 1.safetensors").unlink()
    file.parent.rmdir()
    file.parent.symlink_to(secret.parent)
    (secret.parent / file.name).write_bytes(WEIGHTS)


def replace_by_a_folder(file: Path, _secret: Path) -> None:
    file.unlink()
    file.mkdir()


CHANGES = [make_shorter, remove, link, fifo, link_the_folder, replace_by_a_folder]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("what", ["file", "archive"])
async def test_a_file_that_was_changed_is_refused(
    house: Any, client: Any, job: str, tmp_path: Path, what: str, change: Any
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHTS)  # of the right size and content: only that it lies elsewhere is wrong
    change(directory_of(house, job) / "model" / "weights" / "part 1.safetensors", secret)
    message = await refusal(client, urls(job)[what], 409, "artifact_changed")
    assert "finetune retry" in message


@pytest.mark.parametrize("path", ["../../../secret", "/etc/passwd", "weights/../../secret"])
async def test_a_manifest_that_names_what_is_outside_opens_nothing(
    house: Any, client: Any, job: str, path: str
) -> None:
    root = directory_of(house, job) / "model"
    (root.parent / "secret").write_bytes(b"12345")
    manifest.write(root, manifest.Manifest((manifest.Entry(path, 5, 0),), {}))
    await refusal(client, f"/v1/jobs/{job}/artifacts/model/archive", 409, "artifact_changed")


async def test_an_artifact_that_calls_itself_something_outside_opens_nothing(house: Any, client: Any) -> None:
    job_id = await running_job(house)
    published = facts.ArtifactPublished(attempt=1, name="../spec", kind="model", path="/etc", bytes=1)
    await house.report(job_id, published)
    await refusal(client, f"/v1/jobs/{job_id}/artifacts/..%2Fspec", 409, "artifact_changed")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"files": [{"path": 1}]}', b'{"files": 5}'])
async def test_a_manifest_that_is_none_is_refused(house: Any, client: Any, job: str, content: bytes) -> None:
    (directory_of(house, job) / "model" / manifest.NAME).write_bytes(content)
    await refusal(client, f"/v1/jobs/{job}/artifacts/model", 409, "artifact_changed")


async def test_a_manifest_that_is_a_fifo_holds_up_nobody(house: Any, client: Any, job: str) -> None:
    file = directory_of(house, job) / "model" / manifest.NAME
    file.unlink()
    os.mkfifo(file)
    with anyio.fail_after(10):
        await refusal(client, f"/v1/jobs/{job}/artifacts/model", 409, "artifact_changed")
