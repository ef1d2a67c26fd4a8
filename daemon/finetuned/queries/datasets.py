"""The way in for who looks at datasets: part of :mod:`finetuned.queries.door`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio.to_thread
from anyio import CapacityLimiter

from finetuned.board import Board
from finetuned.datasets import file, preview, references
from finetuned.datasets.preview import Preview
from finetuned.domain.registers import Dataset, DatasetVersion
from finetuned.looking import Check, always, few


@dataclass(frozen=True, slots=True)
class DatasetQueries:
    """What can be looked at of datasets. Unknown names and versions raise ``NotFoundError``."""

    board: Board
    roots: tuple[Path, ...] = ()
    threads: CapacityLimiter = field(default_factory=few)  # that look into files

    async def listed(self, *, after: str | None = None, limit: int = 50) -> tuple[list[Dataset], bool]:
        """A page of datasets by name, and whether there are more."""
        world = await self.board.world()
        names = sorted(name for name in world.datasets if after is None or name > after)
        return [world.datasets[name] for name in names[:limit]], len(names) > limit

    async def dataset(self, name: str) -> Dataset:
        """One dataset with its versions."""
        world = await self.board.world()
        return references.dataset(world.datasets, name)

    async def version(self, name: str, prefix: str | None = None) -> DatasetVersion:
        """The newest version of a dataset, or the one that begins with ``prefix``."""
        dataset = await self.dataset(name)
        return references.version(dataset, None if prefix is None else references.check_prefix(prefix))

    async def preview(
        self, version: DatasetVersion, *, limit: int, after: str | None = None, check: Check = always
    ) -> Preview:
        """A page of a version's rows. Raises ``InvalidRequestError``, ``Rejected``, or what ``check`` raises."""
        work = partial(
            preview.read,
            Path(version.path),
            version.format,
            limit=limit,
            after=after,
            size=version.bytes,
            roots=file.roots_of(version, self.roots),
            identity=file.recorded(version),
            check=check,
        )
        return await anyio.to_thread.run_sync(work, limiter=self.threads)

    async def content(self, version: DatasetVersion, start: int, stop: int) -> Iterator[bytes]:
        """A part of a version's bytes, to be taken off the event loop. Raises ``Rejected`` if its file has changed."""
        path, size, roots = Path(version.path), version.bytes, file.roots_of(version, self.roots)
        identity = file.recorded(version)
        await anyio.to_thread.run_sync(file.check, path, size, roots, identity)
        return file.read(path, size, start, stop, roots, identity)
