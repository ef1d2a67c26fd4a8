"""The store on a real directory: what goes wrong on the disk, and what is left then."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path
from typing import Any

import anyio
import pytest

from finetuned.datasets.content import Inspected
from finetuned.datasets.store import DatasetStore
from finetuned.domain.errors import (
    InvalidRequestError,
    StorageFullError,
    TooLargeError,
    TooManyUploadsError,
    UploadStalledError,
)
from finetuned.storage import intake as intake_module
from finetuned.storage.intake import Limits, Received

ROWS = b'{"a": 1}\n' * 1000
SHA256 = hashlib.sha256(ROWS).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    made = DatasetStore(tmp_path / "datasets", Limits(max_bytes=1 << 20, min_free_bytes=0, stall_s=5))
    made.prepare()
    return made


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files(store: DatasetStore) -> list[str]:
    return sorted(
        str(each.relative_to(store.directory)) for each in store.directory.rglob("*") if each.is_file()
    )


async def take(store: DatasetStore, data: bytes, **kwargs: Any) -> Path:
    async with store.receive(chunks(data), **kwargs) as received:
        return store.place(received)


async def test_a_file_is_whole_and_synced_before_it_gets_its_place(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        done.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().parent.name)
        real_fsync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        done.append("rename")
        assert path.read_bytes() == ROWS
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    path = await take(store, ROWS)
    assert path == store.directory / SHA256 / "data.jsonl"
    # The file itself, then its name in its directory, then that directory's own name.
    assert done == ["sync incoming", "rename", "sync datasets", f"sync {store.directory.parent.name}"]


async def test_a_name_that_was_there_is_synced_too_before_it_is_told(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await take(store, ROWS)  # as a daemon did that was killed before it synced
    synced: list[Path] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_fsync(descriptor)

    async with store.receive(chunks(ROWS)) as received:
        monkeypatch.setattr(os, "fsync", fsync)
        assert store.place(received) == path
    assert synced == [path.parent, store.directory]


async def test_the_directory_of_all_datasets_lasts_before_anything_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()))
    for _ in range(2):
        DatasetStore(tmp_path / "datasets", Limits(max_bytes=1, min_free_bytes=0, stall_s=5)).prepare()
    assert synced == [tmp_path] * 2


async def test_the_same_content_is_kept_once(store: DatasetStore) -> None:
    first = await take(store, ROWS)
    inode = first.stat().st_ino
    assert await take(store, ROWS) == first
    assert first.stat().st_ino == inode
    assert files(store) == [f"{SHA256}/data.jsonl"]


async def test_what_nobody_places_is_removed(store: DatasetStore) -> None:
    async with store.receive(chunks(ROWS)) as received:
        assert received.file.read_bytes() == ROWS
    assert files(store) == []


async def test_whatever_ends_an_upload_leaves_nothing(store: DatasetStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield ROWS
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await received(store, broken())
    with pytest.raises(TooLargeError, match="max_upload_bytes"):
        await received(store, chunks(ROWS * 200))
    with pytest.raises(TooLargeError, match="register it where it lies"):
        await received(store, chunks(), announced=1 << 21)
    with pytest.raises(InvalidRequestError, match="send the file again") as caught:
        await received(store, chunks(ROWS), announced=len(ROWS) + 1)
    assert caught.value.stable_code == "upload_incomplete"
    with anyio.move_on_after(0.05):
        await received(store, silence())
    assert files(store) == []


async def silence() -> AsyncIterator[bytes]:
    yield ROWS
    await anyio.sleep_forever()


async def received(store: DatasetStore, source: AsyncIterator[bytes], **kwargs: Any) -> Received[Inspected]:
    async with store.receive(source, **kwargs) as found:
        return found


async def test_an_upload_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    limits = Limits(max_bytes=1 << 20, min_free_bytes=0, stall_s=0.05)
    store = DatasetStore(tmp_path / "datasets", limits)
    store.prepare()
    with pytest.raises(UploadStalledError, match="upload_stall_s") as caught:
        await received(store, silence())
    assert (caught.value.stable_code, caught.value.status) == ("upload_stalled", 408)
    assert files(store) == []


@pytest.mark.parametrize("failing", ["write", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_told_as_such_wherever_it_shows(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch, failing: str, number: int
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:

        class Full(FileIO):
            def write(self, _data: Any) -> int:
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(intake_module, "FileIO", Full)
    with pytest.raises(StorageFullError, match="free some space") as caught:
        await received(store, chunks(ROWS))
    assert caught.value.stable_code == "disk_full"
    assert files(store) == []


async def test_an_error_of_the_disk_is_not_taken_for_a_full_one(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        await received(store, chunks(ROWS))


async def test_a_write_that_takes_a_part_only_is_gone_on_with(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(FileIO):
        def write(self, data: Any) -> int:
            written = super().write(bytes(data[:100]))
            assert written is not None
            return written

    monkeypatch.setattr(intake_module, "FileIO", Short)
    assert (await take(store, ROWS)).read_bytes() == ROWS


async def test_only_what_is_not_in_use_is_removed(store: DatasetStore) -> None:
    path = await take(store, ROWS)
    other = await take(store, b'a,"b"\n' + ROWS, declared="csv")
    assert store.remove_unused(SHA256, [str(path)]) == []
    assert store.remove_unused(SHA256, [str(other)]) == [path]
    assert not path.parent.exists()
    assert store.remove_unused(SHA256, []) == []  # twice equals once
    assert other.is_file()


def test_a_start_sweeps_what_was_on_its_way_and_nothing_else(store: DatasetStore) -> None:
    (store.directory / "incoming" / "x.part").write_bytes(b"half")
    kept = store.directory / SHA256 / "data.jsonl"
    kept.parent.mkdir()
    kept.write_bytes(ROWS)
    store.prepare()
    assert files(store) == [f"{SHA256}/data.jsonl"]


async def test_uploads_beyond_a_number_are_refused_until_one_has_ended(store: DatasetStore) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield ROWS
        await anyio.sleep_forever()

    async def upload(scope: anyio.CancelScope) -> None:
        with scope:
            async with store.receive(never()):
                pass

    async with anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope() for _ in range(intake_module.MOST_UPLOADS)]
        for scope in scopes:
            tasks.start_soon(upload, scope)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(TooManyUploadsError, match="register it where it lies") as caught:
            await take(store, ROWS)
        assert (caught.value.stable_code, caught.value.status) == ("too_many_uploads", 503)
        scopes[0].cancel()
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(20):
            while store._intake._receiving == len(scopes):  # noqa: ASYNC110 - no event comes
                await anyio.sleep(0.01)
        assert (await take(store, ROWS)).read_bytes() == ROWS
        tasks.cancel_scope.cancel()
    assert store._intake._receiving == 0
