from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.domain.worlds import end, submission

from finetuned.board import Board
from finetuned.domain import attempt_decisions, decisions, facts
from finetuned.domain.errors import NotFoundError
from finetuned.store import Log, open_log, queries


async def submit(log: Log, job_id: str, **changes: object) -> None:
    await log.execute(lambda world: decisions.submit(world, job_id, submission(**changes), actor="uid:1"))


async def finish(log: Log, job_id: str) -> None:
    """Take a queued job through one attempt to its success."""
    await log.execute(lambda world: decisions.schedule(world, elapsed=frozenset()))
    reports = [
        attempt_decisions.Reported(line=1, fact=facts.AttemptStarted(attempt=1)),
        attempt_decisions.Reported(line=2, fact=facts.JobProgress({"loss": 0.5, "progress": 100.0})),
        attempt_decisions.Reported(line=3, fact=facts.AttemptResult(attempt=1, values={"train_loss": 0.5})),
    ]
    await log.execute(lambda world: attempt_decisions.record(world, job_id, 1, reports))
    await log.execute(
        lambda world: attempt_decisions.ended(
            world, job_id, 1, end(), attempt_decisions.Prospect(resume_from=None, jitter=0)
        )
    )


SLOTS = [{"id": "cpu:0", "kind": "cpu", "name": "slot", "memory_bytes": 1}]


async def test_every_statement_of_the_sql_file_is_named_and_runs(tmp_path: Path) -> None:
    async with open_log(tmp_path / "log") as log:
        for name, statement in queries().items():
            # Sealed tables are there once a log was archived: tests/acceptance/api/test_archived_log.py reads them.
            if name.startswith("select") and '"sealed:' not in statement:
                await log.fetch(
                    f"EXPLAIN {statement}",
                    (None,) * 5 if "?5" in statement else (None,) * statement.count("?"),
                )
    assert {"upsert_job", "select_job", "select_jobs", "select_world", "upsert_entry"} <= set(queries())


async def test_the_world_is_the_same_after_a_reopen(tmp_path: Path) -> None:
    async with open_log(tmp_path / "log") as log:
        await log.execute(lambda world: decisions.devices_detected(world, SLOTS))
        await submit(log, "job-1")
        await submit(log, "job-2", validates=True)
        await finish(log, "job-1")
        await log.execute(
            lambda _w: decisions.create_token(facts.TokenCreated(id="t", scope="read", sha256="h"), actor="a")
        )
        before = await Board(log).world()
        assert set(before.jobs) == {"job-2"}
    async with open_log(tmp_path / "log") as log:
        after = await Board(log).world()
        assert after.jobs == before.jobs
        assert after.slots == before.slots
        assert after.tokens == before.tokens
        report = await log.rebuild()
        assert not report.swapped, report


async def test_an_ended_job_is_found_again_when_a_command_names_it(tmp_path: Path) -> None:
    async with open_log(tmp_path / "log") as log:
        await log.execute(lambda world: decisions.devices_detected(world, SLOTS))
        await submit(log, "job-1")
        await finish(log, "job-1")
        await log.execute(lambda world: decisions.delete(world, "job-1", actor="a"))
        with pytest.raises(NotFoundError):
            await log.execute(lambda world: decisions.delete(world, "job-1", actor="a"))


async def test_the_board_shows_what_was_just_committed(tmp_path: Path) -> None:
    async with open_log(tmp_path / "log") as log:
        board = Board(log)
        assert (await board.world()).jobs == {}
        await log.execute(lambda world: decisions.devices_detected(world, SLOTS))
        await submit(log, "job-1", name="first")
        world = await board.world()
        assert world.jobs["job-1"].name == "first"
        assert set(world.slots) == {"cpu:0"}


async def test_the_board_reloads_when_it_fell_behind_what_is_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_log(tmp_path / "log") as log:
        board = Board(log)
        await board.world()
        await log.execute(lambda world: decisions.devices_detected(world, SLOTS))
        await submit(log, "job-1")
        await submit(log, "job-2")
        monkeypatch.setattr(log, "recent", lambda _after: None)
        assert set((await board.world()).jobs) == {"job-1", "job-2"}


async def test_the_board_forgets_ended_jobs_and_bears_their_late_events(tmp_path: Path) -> None:
    async with open_log(tmp_path / "log") as log:
        board = Board(log)
        await board.world()
        await log.execute(lambda world: decisions.devices_detected(world, SLOTS))
        await submit(log, "job-1")
        await finish(log, "job-1")
        assert (await board.world()).jobs == {}
        await log.execute(lambda world: decisions.delete(world, "job-1", actor="a"))
        assert (await board.world()).jobs == {}
