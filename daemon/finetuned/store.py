"""The log as the daemon uses it: which projections it keeps, and how the world is loaded from them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from finetuned.domain import facts
from finetuned.domain.job import Job
from finetuned.domain.registers import (
    AcceptedRequest,
    Alias,
    Dataset,
    File,
    Model,
    Template,
    Token,
    Webhook,
)
from finetuned.domain.world import Slot, World
from finetuned_events import Event, EventLog
from finetuned_events.sql import named

Log = EventLog[World]

_DOCUMENTS: dict[str, type[Any]] = {
    "job": Job,
    "device": Slot,
    "models": Model,
    "datasets": Dataset,
    "templates": Template,
    "template_versions": int,
    "tokens": Token,
    "requests": AcceptedRequest,
    "files": File,
    "aliases": Alias,
    "webhooks": Webhook,
}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_DOCUMENTS[name])  # built when first needed: each takes milliseconds of the start


def open_log(
    path: Path, kind: type[Log] = EventLog, *, reserve: int = 0, read_only: bool = False
) -> AbstractAsyncContextManager[Log]:
    """Open the daemon's log with its world and projections.

    ``kind`` is its class; ``reserve`` bytes of the disk are kept for what must be recorded when it is full.
    """
    return kind.open(
        path,
        model=WorldModel(),
        projections=(WorldProjection(),),
        known=facts.SCHEMAS,
        reserve=reserve,
        read_only=read_only,
    )


@cache
def queries() -> dict[str, str]:
    """The named statements of ``sql/queries.sql``."""
    return named(resources.files("finetuned").joinpath("sql/queries.sql").read_text())


class WorldProjection:
    """Jobs, devices and registers as tables."""

    name = "world"
    version = 5
    tables = ("jobs", "devices", "registers")

    @property
    def schema(self) -> str:
        """The tables' definitions."""
        return resources.files("finetuned").joinpath("sql/world.sql").read_text()

    def write(self, connection: sqlite3.Connection, state: World, _events: Sequence[Event]) -> None:
        """Write what the batch changed."""
        statement = queries()
        jobs = [_job_row(state.jobs[job_id]) for job_id in state.touched]
        connection.executemany(statement["upsert_job"], jobs)
        if state.slots_touched:
            connection.execute(statement["clear_devices"])
            rows = [(slot.id, orjson.dumps(slot)) for slot in state.slots.values()]
            connection.executemany(statement["insert_device"], rows)
        for name, shelf in state.shelves.items():
            for key in shelf.touched:
                if key in shelf:
                    connection.execute(statement["upsert_entry"], (name, key, orjson.dumps(shelf[key])))
                else:
                    connection.execute(statement["delete_entry"], (name, key))


def _job_row(job: Job) -> tuple[object, ...]:
    return (
        job.id,
        job.seq,
        job.updated_seq,
        job.state.value,
        job.is_live,
        job.deleted,
        job.kind,
        job.name,
        job.priority,
        job.retry_of,
        orjson.dumps(job),
    )


class WorldModel:
    """How the log's writer gets its world: empty for a replay, or from the projections at the head."""

    def initial(self, connection: sqlite3.Connection) -> World:
        """An empty world that looks ended jobs up in ``connection``."""

        def lookup(job_id: str) -> Job | None:
            row = connection.execute(queries()["select_job"], (job_id,)).fetchone()
            return None if row is None else job_from(row[0])

        return World(lookup=lookup)

    def load(self, connection: sqlite3.Connection) -> World:
        """The world at the head."""
        world = self.initial(connection)
        fill(world, connection.execute(queries()["select_world"]).fetchall())
        return world


def fill(world: World, rows: Iterable[tuple[str, str | None, Any]]) -> int:
    """Put the rows of ``select_world`` into ``world``; the position they stand at."""
    seq = 0
    shelves = world.shelves
    for what, key, document in rows:
        match what:
            case "seq":
                seq = document
            case "job":
                job = job_from(document)
                world.jobs[job.id] = job
            case "device":
                slot = _adapter("device").validate_json(document)
                world.slots[slot.id] = slot
            case _:
                assert key is not None
                shelves[what][key] = _adapter(what).validate_json(document)
    accepted = sorted(world.requests.items(), key=lambda item: item[1].at)
    world.requests.clear()
    world.requests.update(accepted)  # oldest first, as the fold keeps them
    return seq


def file_from(document: bytes) -> File:
    """The file behind a document of the register."""
    file: File = _adapter("files").validate_json(document)
    return file


def job_from(document: bytes) -> Job:
    """The job behind a projected document."""
    job: Job = _adapter("job").validate_json(document)
    return job
