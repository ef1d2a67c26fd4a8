"""Downloads go on where they broke off, and get their name only if their checksum is right."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from finetuned.client import Client
from finetuned.client import download as client_download
from finetuned.client.download import DownloadError
from finetuned.client.endpoint import Endpoint
from finetuned.wire import ArtifactFile

WEIGHTS = bytes(range(256)) * 32768  # 8 MiB: far more than a connection buffers


class Shelf:
    """A server with one file, which may break off or be damaged on the way."""

    def __init__(self) -> None:
        self.content = WEIGHTS
        self.tag = '"one"'
        self.break_at: list[int] = []  # bytes after which each of the next answers is cut
        self.damages = 0  # how many of the next answers have a wrong byte
        self.ranges: list[str | None] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.ranges.append(request.headers.get("Range"))
        start = 0
        if "Range" in request.headers and request.headers.get("If-Range", self.tag) == self.tag:
            start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        body = self.content[start:]
        if self.damages and request.method == "GET":
            self.damages -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        response = web.StreamResponse(status=206 if start else 200, headers={"ETag": self.tag})
        response.content_length = len(body)
        await response.prepare(request)
        if request.method == "HEAD":
            self.ranges.pop()
            return response
        if self.break_at:
            await response.write(body[: self.break_at.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response

    @property
    def file(self) -> ArtifactFile:
        return {"path": "sub/weights", "bytes": len(self.content), "crc32": zlib.crc32(self.content)}


@pytest.fixture
async def shelf(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shelf]:
    monkeypatch.setattr(client_download, "FIRST_PAUSE", 0.001)
    server = Shelf()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.UnixSite(runner, str(directory / "s")).start()
    yield server
    await runner.cleanup()


@pytest.fixture
async def client(shelf: Shelf, directory: Path) -> AsyncIterator[Client]:
    async with Client(Endpoint(socket=directory / "s")) as connected:
        yield connected


async def test_a_file_arrives_whole_in_a_folder_that_is_made(
    shelf: Shelf, client: Client, tmp_path: Path
) -> None:
    counted: list[int] = []
    target = tmp_path / "new" / "weights"
    assert await client.download_file("job-1", "adapter", shelf.file, target, on_bytes=counted.append)
    assert target.read_bytes() == WEIGHTS
    assert sum(counted) == len(WEIGHTS)
    assert [each.name for each in target.parent.iterdir()] == ["weights"]


async def test_a_file_is_on_disk_before_it_has_its_name(
    client: Client, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        part = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert part.read_bytes() == WEIGHTS
        done.append(f"sync {part.name}")
        sync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        done.append(f"rename {path.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    await client.download_file("job-1", "adapter", shelf.file, tmp_path / "w")
    part = f".w.{zlib.crc32(WEIGHTS):08x}.part"
    assert done == [f"sync {part}", f"rename {part}"]


async def test_a_broken_connection_is_resumed_where_it_broke(
    shelf: Shelf, client: Client, tmp_path: Path
) -> None:
    shelf.break_at = [3_000_000, 2_000_000]
    counted: list[int] = []
    await client.download_file("job-1", "adapter", shelf.file, tmp_path / "w", on_bytes=counted.append)
    assert (tmp_path / "w").read_bytes() == WEIGHTS
    starts = [int((asked or "bytes=0-")[6:-1]) for asked in shelf.ranges]
    assert starts[0] == 0 < starts[1] <= 3_000_000
    assert starts[1] < starts[2] <= 5_000_000
    assert sum(counted) == len(WEIGHTS)


async def test_a_later_call_goes_on_with_what_an_earlier_left(
    shelf: Shelf, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_download, "PATIENCE", 0.0)
    shelf.break_at = [4_000_000, 0, 0]
    with pytest.raises(DownloadError, match="it goes on from there"):
        await client.download_file("job-1", "adapter", shelf.file, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    shelf.break_at, shelf.ranges = [], []
    await client.download_file("job-1", "adapter", shelf.file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == WEIGHTS
    assert shelf.ranges[0] not in {None, "bytes=0-"}


async def test_what_is_here_already_is_not_brought_again(
    shelf: Shelf, client: Client, tmp_path: Path
) -> None:
    target = tmp_path / "w"
    target.write_bytes(WEIGHTS)
    assert not await client.download_file("job-1", "adapter", shelf.file, target)
    assert shelf.ranges == []
    target.write_bytes(WEIGHTS[:-1] + b"x")
    assert await client.download_file("job-1", "adapter", shelf.file, target)
    assert target.read_bytes() == WEIGHTS


async def test_one_damage_is_repaired_by_a_second_try(shelf: Shelf, client: Client, tmp_path: Path) -> None:
    shelf.damages = 1
    await client.download_file("job-1", "adapter", shelf.file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == WEIGHTS


async def test_lasting_damage_is_refused_and_leaves_no_file(
    shelf: Shelf, client: Client, tmp_path: Path
) -> None:
    shelf.damages = 2
    with pytest.raises(DownloadError, match="damaged twice"):
        await client.download_file("job-1", "adapter", shelf.file, tmp_path / "w")
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a test


async def test_an_empty_file_needs_no_request(shelf: Shelf, client: Client, tmp_path: Path) -> None:
    shelf.content = b""
    await client.download_file("job-1", "adapter", shelf.file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == b""
    assert shelf.ranges == []


async def test_a_full_disk_is_no_lost_connection(shelf: Shelf, client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        await client.download_file("job-1", "adapter", shelf.file, tmp_path / "f" / "w")


def an_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights", WEIGHTS)
    return buffer.getvalue()


async def test_an_archive_is_resumed_by_its_tag_and_each_member_checked(
    shelf: Shelf, client: Client, tmp_path: Path
) -> None:
    shelf.content, shelf.break_at = an_archive(), [5_000_000]
    await client.download_archive("job-1", "adapter", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == shelf.content
    assert len(shelf.ranges) == 2
    shelf.content = shelf.content[:5000] + b"!" + shelf.content[5001:]
    shelf.tag = '"two"'
    with pytest.raises(DownloadError, match="damaged"):
        await client.download_archive("job-1", "adapter", tmp_path / "b.zip")


async def test_what_was_begun_of_another_archive_is_not_gone_on_with(
    shelf: Shelf, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_download, "PATIENCE", 0.0)
    shelf.content, shelf.break_at = an_archive(), [5_000_000, 0, 0]
    with pytest.raises(DownloadError):
        await client.download_archive("job-1", "adapter", tmp_path / "a.zip")
    shelf.tag, shelf.break_at, shelf.ranges = '"two"', [], []
    await client.download_archive("job-1", "adapter", tmp_path / "a.zip")
    assert shelf.ranges == [None]
