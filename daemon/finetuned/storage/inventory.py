"""What takes the disk of the state directory: looked at now and then, with the sizes of ended jobs remembered."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio.to_thread

from finetuned.domain.retention import Kept
from finetuned.storage.sizes import size_of
from finetuned.store import Log, queries
from finetuned_events.reserve import reserve_path

log = logging.getLogger(__name__)

ASIDE: Final = "quarantine-"  # bundles of which the log does not know: nobody removes them
CHUNK: Final = 500  # jobs that are looked up at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Bytes on disk. ``ended`` are the ended jobs that may lose their files some day."""

    log: int
    reserve: int
    datasets: int  # and files
    cache: int  # of workers: what they can work out again
    live_jobs: int
    ended_jobs: int
    unknown_jobs: int  # below the jobs' directory and not in the log, or deleted and not gone yet
    ended: tuple[Kept, ...]


@dataclass(slots=True)
class Inventory:
    """Looks at the files of the log, of workers' caches, jobs and datasets; the newest look is ``taken``."""

    log: Log
    cache_dir: Path
    jobs_dir: Path
    datasets_dir: Path
    files_dir: Path
    taken: Taken | None = None
    _ended: dict[str, Kept] = field(default_factory=dict)  # an ended job's files change no more

    async def look(self) -> Taken:
        """Look now. What was seen of ended jobs before is not walked again.

        Raises ``OSError`` if the jobs' directory cannot be read; a job's own that cannot be is counted as far as it
        is seen, and stays.
        """
        names = await anyio.to_thread.run_sync(_names, self.jobs_dir)
        there = set(names)
        self._ended = {name: kept for name, kept in self._ended.items() if name in there}
        live, unknown, aside = [], 0, 0
        for chunk in _chunks([name for name in names if name not in self._ended]):
            found = await self._look_up(chunk)
            for name in chunk:
                directory = self.jobs_dir / name
                finished_at, is_live = found.get(name, (None, False))
                if is_live:
                    live.append(directory)
                elif finished_at is None:
                    unknown += await anyio.to_thread.run_sync(size_of, directory)
                elif await anyio.to_thread.run_sync(_stays, directory):
                    aside += await anyio.to_thread.run_sync(size_of, directory)
                else:
                    size = await anyio.to_thread.run_sync(size_of, directory)
                    self._ended[name] = Kept(name, finished_at, size)
        ended = tuple(self._ended.values())
        uploaded = (self.datasets_dir, self.files_dir)
        self.taken = Taken(
            log=await anyio.to_thread.run_sync(_log_bytes, self.log.path),
            reserve=await anyio.to_thread.run_sync(size_of, reserve_path(self.log.path)),
            datasets=await anyio.to_thread.run_sync(lambda: sum(map(size_of, uploaded))),
            cache=await anyio.to_thread.run_sync(size_of, self.cache_dir),
            live_jobs=await anyio.to_thread.run_sync(lambda: sum(map(size_of, live))),
            ended_jobs=sum(each.bytes for each in ended) + aside,
            unknown_jobs=unknown,
            ended=ended,
        )
        return self.taken

    async def _look_up(self, names: Sequence[str]) -> dict[str, tuple[int | None, bool]]:
        """For jobs that the log knows: when they ended, and whether they live."""
        rows = await self.log.fetch(queries()["select_ends"], (json.dumps(names),))
        return {name: (finished_at, bool(live)) for name, live, finished_at in rows}


def _names(directory: Path) -> list[str]:
    try:
        return sorted(each.name for each in directory.iterdir())
    except FileNotFoundError:
        return []


def _stays(job: Path) -> bool:
    """Whether an ended job holds what nobody may remove, or cannot be read, so that it may."""
    try:
        return any(name.startswith(ASIDE) for name in _names(job / "attempts"))
    except OSError as error:
        log.warning("The files of %s stay, because they cannot be read: %s", job.name, error)
        return True


def _log_bytes(log: Path) -> int:
    return sum(size_of(log.with_name(log.name + suffix)) for suffix in ("", "-wal", "-shm"))


def _chunks(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))
