"""The way in for changes of datasets: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from finetuned.access.path_policy import NOWHERE, PathPolicy
from finetuned.access.server_paths import root_of
from finetuned.commands.appending import Appending
from finetuned.datasets import references
from finetuned.datasets.content import Format, Inspected, Inspection, open_regular
from finetuned.datasets.file import identity_of
from finetuned.datasets.store import DatasetStore
from finetuned.domain import dataset_decisions, facts, registers
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.idempotency import Once
from finetuned.domain.registers import Dataset, DatasetVersion, Shelf
from finetuned.domain.world import World
from finetuned.job_request import JobRequest
from finetuned.patience import FATAL
from finetuned_events import NewEvent

log = logging.getLogger(__name__)

Json = Any

BLOCK = 1 << 24  # bytes of a file on the server that are read at a time
TICK_NS = 20_000_000  # two writes within it may be given one time by a file system


@dataclass(frozen=True, slots=True)
class Registered:
    """A dataset as it was when a version became its newest; ``new`` if it had no such content before."""

    dataset: Dataset
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """How a dataset is to be audited: as a training with ``model`` and ``params`` would read it.

    ``version`` is one of the dataset's, or what one begins with; ``None`` for the newest.
    """

    model: str
    params: Mapping[str, Json]
    version: str | None
    kind: str

    def request(self, name: str, version: DatasetVersion) -> JobRequest:
        """The job that audits this version."""
        dataset = f"{references.SCHEME}{name}@{version.version}"
        params = {**self.params, "model": self.model, "dataset": dataset}
        return JobRequest(kind=self.kind, params=params, name=f"audit of {name}")


@dataclass(slots=True)
class DatasetCommands:
    """What can be done with datasets. Each method returns after its events are on disk, files before events.

    The same content under the same name again changes nothing, so each may be repeated.
    """

    appending: Appending
    store: DatasetStore
    paths: PathPolicy = NOWHERE

    async def upload(
        self,
        name: str,
        chunks: AsyncIterator[bytes],
        *,
        actor: str,
        declared: Format | None = None,
        announced: int | None = None,
        expected: Sequence[str] = (),
        once: Once | None = None,
    ) -> Registered:
        """Take a file in and make it the newest version of ``name``.

        ``declared`` is its format, ``announced`` its size and ``expected`` its SHA-256 in hexadecimal, where they
        were told. Raises ``InvalidRequestError``, ``TooLargeError``, ``StorageFullError`` or ``UploadStalledError``.
        """
        references.check_name(name)
        async with self.store.receive(chunks, declared=declared, announced=announced) as received:
            _check_hash(received.content, expected)
            # Not given up between the file's move and its event: nobody would know the file.
            with anyio.CancelScope(shield=True):
                async with self.store.changing:
                    path = await anyio.to_thread.run_sync(self.store.place, received)
                    registered = await self._register(name, received.content, path, "upload", actor, once)
        return registered

    async def register(
        self,
        name: str,
        path: str,
        *,
        actor: str,
        may_name_paths: bool = False,
        declared: Format | None = None,
        expected: Sequence[str] = (),
        once: Once | None = None,
    ) -> Registered:
        """Name a file that stays where it is on the server; it is read through once.

        ``may_name_paths`` is said of a caller who may name any. Raises ``PermissionDeniedError`` or ``InvalidRequestError``.
        """
        references.check_name(name)
        paths = self.paths.of(may_name_paths=may_name_paths)
        await anyio.to_thread.run_sync(lambda: paths.check({"path": path}, ("path",), prefix=""))
        file = Path(path)
        if not file.is_absolute() or ".." in file.parts or "\0" in path:
            raise _no_file(path, "it is no plain absolute path")
        await anyio.to_thread.run_sync(_check_canonical, file, self.paths.roots)
        content, identity = await _inspect(file, declared, self.paths.roots)
        _check_hash(content, expected)
        with anyio.CancelScope(shield=True):
            async with self.store.changing:
                registered = await self._register(name, content, file, "path", actor, once, identity)
        return registered

    async def delete(self, name: str, prefix: str | None, *, actor: str) -> list[str]:
        """Free a name, or one of its versions; which versions that were. Live jobs keep the files they were given.

        Raises ``NotFoundError``, or ``InvalidRequestError`` for a prefix of several versions.
        """
        world = await self.appending.board.world()
        dataset = references.dataset(world.datasets, name)
        versions = [each.version for each in dataset.versions]
        if prefix is not None:
            versions = [references.version(dataset, references.check_prefix(prefix)).version]
        only = versions if prefix is not None else None
        await self.appending.log.execute(
            lambda world: dataset_decisions.delete(world, name, only, actor=actor), necessary=True
        )
        return versions

    async def _register(
        self,
        name: str,
        content: Inspected,
        path: Path,
        source: str,
        actor: str,
        once: Once | None,
        identity: str | None = None,
    ) -> Registered:
        fact = facts.DatasetRegistered(
            name=name,
            version=content.sha256,
            path=str(path),
            bytes=content.bytes,
            format=content.format,
            source=source,
            rows=content.rows,
            identity=identity,
        )
        if once is not None:
            once.include(content.sha256.encode())

        before: Dataset | None = None

        def decide(world: World) -> list[NewEvent]:
            nonlocal before
            before = world.datasets.get(name)
            return dataset_decisions.register(world, fact, actor=actor)

        try:
            appended = await self.appending.execute(decide, subject=f"dataset/{name}", actor=actor, once=once)
        except FATAL:
            raise  # whether the event is on disk is not known
        except Exception:
            await self.remove_unused(content.sha256)
            raise
        if once is not None and once.replayed:
            await self.remove_unused(content.sha256)  # it may have been deleted since
            return Registered(
                references.dataset((await self.appending.board.world()).datasets, name), new=False
            )
        # Not looked up: somebody else may have deleted or replaced it by now.
        shelf = Shelf[Dataset]()
        if before is not None:
            shelf.put(name, before)
        for event in appended.events:
            registers.fold_dataset(shelf, facts.decode(event.type, event.data), event.at, event.actor)
        new = before is None or all(each.version != content.sha256 for each in before.versions)
        return Registered(references.dataset(shelf, name), new)

    async def remove_unused(self, version: str) -> None:
        """Remove what nobody needs of a version. Hold ``store.changing``."""
        in_use = frozenset(dataset_decisions.paths_in_use(await self.appending.board.world()))
        for file in await anyio.to_thread.run_sync(self.store.remove_unused, version, in_use):
            log.info("Removed %s, which no dataset and no live job needs any more", file)


def _check_hash(content: Inspected, expected: Iterable[str]) -> None:
    for each in expected:
        if content.sha256 != each.lower():
            raise InvalidRequestError(
                f"The file has the SHA-256 {content.sha256} and {each.lower()} was expected; nothing was kept. Send"
                " it again, or correct the hash.",
                code="digest_mismatch",
            )


def _check_canonical(path: Path, roots: tuple[Path, ...]) -> None:
    """Refuse a path through links: whoever owns one of them would decide later what is shown. Blocks.

    Beneath a root links are followed as long as they stay there.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a ring of links
        return  # opening it says what is wrong
    if root_of(path, roots) is None and str(real) != str(path):
        raise _no_file(str(path), f"it leads through a symbolic link; the file is {real}")


async def _inspect(path: Path, declared: Format | None, roots: tuple[Path, ...]) -> tuple[Inspected, str]:
    """What the file's bytes are, and its identity. What changes while it is read is refused."""
    inspection = Inspection(declared)
    try:
        file = await anyio.to_thread.run_sync(open_regular, path, roots)
        try:
            before = os.fstat(file.fileno())
            if _is_recent(before):
                await anyio.sleep(2 * TICK_NS / 1e9)
                before = os.fstat(file.fileno())
                if _is_recent(before):
                    raise _no_file(str(path), "it is being written")
            while await anyio.to_thread.run_sync(_look, file, inspection):
                pass
            if identity_of(os.fstat(file.fileno())) != identity_of(before):
                raise _no_file(str(path), "it was written while it was read")
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(file.close)
    except OSError as error:
        raise _no_file(str(path), error.strerror or str(error)) from None
    return await anyio.to_thread.run_sync(inspection.finish), identity_of(before)


def _is_recent(found: os.stat_result) -> bool:
    """Whether a write now might not show in the file's times."""
    return abs(time.time_ns() - found.st_ctime_ns) < TICK_NS


def _look(file: FileIO, inspection: Inspection) -> bool:
    block = file.read(BLOCK)
    inspection.feed(block)
    return bool(block)


def _no_file(path: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path[:200]!r} cannot be registered ({why}); give the path of a file on the server that the daemon can"
        " read, or upload it.",
        param="path",
        code="dataset_unreadable",
    )
