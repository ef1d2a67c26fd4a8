"""What a log names that lies beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from finetuned.domain.world import World
from finetuned.store import fill, queries
from finetuned_events import seals
from finetuned_sdk import manifest

RECORDS: Final = ("spec.json", "runner.json", "control.json", "exit.json", "spool.ndjson")


@dataclass(frozen=True, slots=True)
class Named:
    """A model, dataset (or file), checkpoint or archive, where it lies; ``sha256`` where the log knows it."""

    what: str
    name: str
    path: Path
    sha256: str | None = None


def archived(log: Path, beside: Path) -> Iterator[Named]:
    """The files that hold the beginning of the log, where they were written or in ``beside``."""
    with closing(sqlite3.connect(f"{log.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        for seal in seals.all_of(connection):
            name = f"events {seal.previous.seq + 1} to {seal.head.seq}"
            yield Named("archive", name, seals.place(seal, beside) or seal.file, seal.sha256)


def world_of(log: Path) -> World:
    """The world at the head of a log that nobody writes to."""
    world = World()
    with closing(sqlite3.connect(f"{log.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        fill(world, connection.execute(queries()["select_world"]))
    return world


def named(world: World) -> Iterator[Named]:
    """Everything that has a name, and the checkpoints of jobs that have not ended."""
    for model in sorted(world.models.values(), key=lambda each: each.name):
        yield Named("model", model.name, Path(model.path))
    for dataset in sorted(world.datasets.values(), key=lambda each: each.name):
        for version in dataset.versions:
            yield Named(
                "dataset", f"{dataset.name}@{version.version[:12]}", Path(version.path), version.version
            )
    for file in sorted(world.files.values(), key=lambda each: each.seq):
        yield Named("dataset", file.id, Path(file.path), file.sha256)
    for job in sorted(world.live_jobs(), key=lambda each: each.seq):
        for checkpoint in job.checkpoints:
            yield Named("checkpoint", f"{job.id}@{checkpoint['step']}", Path(checkpoint["path"]))


def records(world: World, jobs: Path) -> Iterator[Path]:
    """The files by which the attempts of live jobs are found again."""
    for job in sorted(world.live_jobs(), key=lambda each: each.seq):
        for bundle in sorted((jobs / job.id / "attempts").glob("*")):
            yield from (bundle / name for name in RECORDS if (bundle / name).is_file())


def files(path: Path) -> list[Path]:
    """The regular files of a model, dataset or checkpoint, its manifest last; none if it is not there."""
    if path.is_symlink() or not path.exists():
        return []
    own = [path] if path.is_file() else sorted(each for each in path.rglob("*") if _is_regular(each))
    last = manifest.manifest_path(path)
    return [*(each for each in own if each != last), *([last] if last.is_file() else [])]


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
