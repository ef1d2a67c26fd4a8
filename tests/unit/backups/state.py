"""A state directory with a log, a live job with checkpoints, a model, a dataset and a deleted job."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Self

from finetuned.domain import decisions, facts
from finetuned.domain.streams import job_event
from finetuned.store import open_log
from finetuned_events import NewEvent
from finetuned_sdk import manifest
from finetuned_sdk.bundle import Bundle, Spec

ROWS = b'{"text": "hello"}\n'


@dataclass(frozen=True, slots=True)
class State:
    """Where it is, and its live and its deleted job."""

    path: Path
    live: str = "job-live"
    deleted: str = "job-deleted"

    @property
    def log(self) -> Path:
        """The event log."""
        return self.path / "events.sqlite"

    @property
    def jobs(self) -> Path:
        """The jobs' files."""
        return self.path / "jobs"

    @property
    def checkpoint(self) -> Path:
        """The live job's newest checkpoint, of two."""
        return self.jobs / self.live / "attempts" / "1" / "checkpoints" / "step-2"

    @property
    def model(self) -> Path:
        """The model's directory."""
        return self.jobs / "job-done" / "attempts" / "1" / "artifacts" / "model"

    @property
    def dataset(self) -> Path:
        """The dataset's file."""
        return self.path / "datasets" / sha256(ROWS).hexdigest() / "rows.jsonl"

    @classmethod
    def made(cls, path: Path) -> Self:
        """Make one."""
        state = cls(path)
        bundle = Bundle(state.jobs / state.live / "attempts" / "1")
        spec = Spec(
            job=state.live,
            attempt=1,
            kind="fake",
            entry="a:b",
            params={},
            params_model="a:B",
            interpreter="x",
        )
        bundle.create(spec)
        for step in (1, 2):
            _sealed(state.checkpoint.with_name(f"step-{step}"), step)
        _sealed(state.model, 9)
        state.dataset.parent.mkdir(parents=True)
        state.dataset.write_bytes(ROWS)
        asyncio.run(state._record())
        return state

    async def _record(self) -> None:
        submitted = facts.JobSubmitted(
            kind="fake", name=None, params={}, priority=0, metadata={}, devices=1, validates=False,
            max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None,
        )  # fmt: skip
        told: list[facts.Fact] = [
            facts.AttemptStarting(attempt=1, purpose="run", devices=[]),
            facts.AttemptStarted(attempt=1),
            *(
                facts.CheckpointSaved(
                    attempt=1,
                    path=str(self.checkpoint.with_name(f"step-{step}")),
                    step=step,
                    metrics={},
                    bytes=7,
                )
                for step in (1, 2)
            ),
        ]
        model = facts.ModelRegistered(
            name="kept", path=str(self.model), kind="adapter", base=None, job=None, lineage={}
        )
        rows = facts.DatasetRegistered(
            name="rows", version=sha256(ROWS).hexdigest(), path=str(self.dataset), bytes=len(ROWS), format="jsonl",
            source="upload", rows=1,
        )  # fmt: skip
        cpu = {"id": "cpu:0", "kind": "cpu", "name": "a core", "memory_bytes": 1 << 30}
        async with open_log(self.log) as log:
            await log.execute(lambda world: decisions.devices_detected(world, [cpu]))
            for ended in (self.deleted, "job-done"):
                await log.execute(partial(decisions.submit, job_id=ended, fact=submitted, actor="test"))
                await log.execute(partial(decisions.cancel, job_id=ended, actor="test", reason=None))
            await log.execute(lambda world: decisions.delete(world, self.deleted, actor="test"))
            await log.execute(lambda world: decisions.submit(world, self.live, submitted, actor="test"))
            await log.append([job_event(self.live, fact, actor="attempt:1") for fact in told])
            await log.append(
                [
                    NewEvent("model/kept", model.type, model.to_data(), actor="test"),
                    NewEvent("dataset/rows", rows.type, rows.to_data(), actor="test"),
                ]
            )


def _sealed(directory: Path, step: int) -> None:
    directory.mkdir(parents=True)
    (directory / "weights.bin").write_bytes(b"weights")
    manifest.seal(directory, step=step)


def tampered(log: Path) -> None:
    """Edit an event behind the log's back."""
    with closing(sqlite3.connect(log)) as raw:
        raw.execute("DROP TRIGGER events_refuse_update")
        raw.execute("UPDATE events SET actor = 'somebody' WHERE seq = 2")
        raw.commit()
