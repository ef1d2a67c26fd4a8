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
from finetuned.domain.world import Model, Slot, Token, World
from finetuned_events import Event, EventLog
from finetuned_events.sql import named

Log = EventLog[World]

_JOB = TypeAdapter(Job)
_SLOT = TypeAdapter(Slot)
_MODEL = TypeAdapter(Model)
_TOKEN = TypeAdapter(Token)


def open_log(path: Path) -> AbstractAsyncContextManager[Log]:
    """Open the daemon's log with its world and projections."""
    return EventLog.open(path, model=WorldModel(), projections=(WorldProjection(),), known=facts.SCHEMAS)


@cache
def queries() -> dict[str, str]:
    """The named statements of ``sql/queries.sql``."""
    return named(resources.files("finetuned").joinpath("sql/queries.sql").read_text())


class WorldProjection:
    """Jobs, devices, models and tokens as tables."""

    name = "world"
    version = 1
    tables = ("jobs", "devices", "models", "tokens")

    @property
    def schema(self) -> str:
        """The tables' definitions."""
        return resources.files("finetuned").joinpath("sql/world.sql").read_text()

    def write(self, connection: sqlite3.Connection, state: World, events: Sequence[Event]) -> None:
        """Write what the batch changed."""
        statement = queries()
        newest = {event.stream: event.seq for event in events}
        jobs = [_job_row(state.jobs[job_id], newest[f"job/{job_id}"]) for job_id in state.touched]
        connection.executemany(statement["upsert_job"], jobs)
        if state.slots_touched:
            connection.execute(statement["clear_devices"])
            rows = [(slot.id, orjson.dumps(slot)) for slot in state.slots.values()]
            connection.executemany(statement["insert_device"], rows)
        for name in state.models_touched:
            if name in state.models:
                connection.execute(statement["upsert_model"], (name, orjson.dumps(state.models[name])))
            else:
                connection.execute(statement["delete_model"], (name,))
        tokens = [(token, orjson.dumps(state.tokens[token])) for token in state.tokens_touched]
        connection.executemany(statement["upsert_token"], tokens)


def _job_row(job: Job, updated_seq: int) -> tuple[object, ...]:
    return (
        job.id,
        job.seq,
        updated_seq,
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


def fill(world: World, rows: Iterable[tuple[str, Any]]) -> int:
    """Put the rows of ``select_world`` into ``world``; the position they stand at."""
    seq = 0
    for what, document in rows:
        match what:
            case "seq":
                seq = document
            case "job":
                job = job_from(document)
                world.jobs[job.id] = job
            case "device":
                slot = _SLOT.validate_json(document)
                world.slots[slot.id] = slot
            case "model":
                model = _MODEL.validate_json(document)
                world.models[model.name] = model
            case "token":
                token = _TOKEN.validate_json(document)
                world.tokens[token.id] = token
    return seq


def job_from(document: bytes) -> Job:
    """The job behind a projected document."""
    return _JOB.validate_json(document)
