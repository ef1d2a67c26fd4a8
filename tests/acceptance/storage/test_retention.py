"""Files of ended jobs are removed by age and size where the operator wants it, and the API says so."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from tests.acceptance.daemon.process import eventually, running

from finetuned.commands.storage import StorageCommands
from finetuned.domain import facts
from finetuned.domain.retention import DAY_US, Policy
from finetuned.domain.streams import event
from finetuned.followers import FileRemover, follow
from finetuned.storage.inventory import Inventory
from finetuned.storage.keeper import Keeper
from finetuned.testing import House, serve_house

KIB = 1 << 10


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ftd-") as name:  # short enough for a Unix socket
        yield Path(name)


@asynccontextmanager
async def served(state_dir: Path) -> AsyncIterator[tuple[House, aiohttp.ClientSession]]:
    """A daemon that removes files as a real one does."""
    async with serve_house(state_dir) as house, anyio.create_task_group() as tasks:
        tasks.start_soon(follow, house.log, FileRemover(house.jobs_dir))
        connector = aiohttp.UnixConnector(str(house.addresses.socket))
        async with aiohttp.ClientSession("http://finetuned", connector=connector) as client:
            yield house, client
        tasks.cancel_scope.cancel()


def keeper_of(house: House, policy: Policy, *, days_later: float = 0.0) -> Keeper:
    state = house.config.state_dir
    inventory = Inventory(
        house.log, state / "cache", house.jobs_dir, datasets_dir=state / "datasets", files_dir=state / "files"
    )
    later = round(days_later * DAY_US)
    return Keeper(
        house.commands.appending.board,
        inventory,
        StorageCommands(house.commands.appending),
        policy,
        now=lambda: house.commands.appending.now() + later,
    )


async def ended_job(house: House, *, size: int = 64 * KIB) -> str:
    """A job that has ended and left a file and a checkpoint's event."""
    job_id = await house.accept_job()
    await house.start_attempt()
    directory = house.jobs_dir / job_id / "attempts" / "1" / "artifacts"
    await anyio.Path(directory).mkdir(parents=True)
    await anyio.Path(directory / "adapter").write_bytes(bytes(size))
    saved = facts.CheckpointSaved(attempt=1, step=1, path=str(directory), bytes=1, metrics={})
    published = facts.ArtifactPublished(
        attempt=1, name="adapter", kind="file", path=str(directory / "adapter"), bytes=size, files=[]
    )
    await house.report(job_id, saved, published)
    await house.end_attempt(job_id)
    return job_id


async def gone(house: House, job_id: str) -> None:
    with anyio.fail_after(15):
        while await anyio.Path(house.jobs_dir / job_id).exists():  # noqa: ASYNC110 - files tell nobody that they go
            await anyio.sleep(0.01)


async def refused(client: aiohttp.ClientSession, path: str, **query: str) -> tuple[int, str, str]:
    async with client.get(path, params=query) as response:
        error = (await response.json())["error"]
        return response.status, error["code"], error["message"]


async def test_the_oldest_files_go_and_who_asks_for_them_is_told_when_and_why(state_dir: Path) -> None:
    async with served(state_dir) as (house, client):
        jobs = [await ended_job(house) for _ in range(3)]
        await keeper_of(house, Policy(bytes=100 * KIB)).look()
        await gone(house, jobs[0])
        await gone(house, jobs[1])
        assert (house.jobs_dir / jobs[2]).exists()
        shown = await (await client.get(f"/v1/jobs/{jobs[0]}")).json()
        assert shown["state"] == "succeeded"
        assert shown["checkpoints"] == []
        assert shown["files_removed"]["bytes"] >= 64 * KIB
        assert "keep_jobs_bytes" in shown["files_removed"]["reason"]
        for path in ("artifacts/adapter", "artifacts/adapter/files/adapter", "logs"):
            status, code, message = await refused(client, f"/v1/jobs/{jobs[0]}/{path}")
            assert (status, code) == (410, "files_removed")
            assert "keep_jobs_bytes" in message
            assert f"finetune retry {jobs[0]}" in message
        status = (await client.get(f"/v1/jobs/{jobs[2]}/artifacts")).status
        assert status == 200
        events = await (await client.get(f"/v1/jobs/{jobs[0]}/events")).json()
        assert [each["type"] for each in events["data"]][-1] == "job.files_removed"


async def test_a_retry_from_a_checkpoint_that_was_removed_is_refused(state_dir: Path) -> None:
    async with served(state_dir) as (house, client):
        job_id = await ended_job(house)
        await keeper_of(house, Policy(bytes=0)).look()
        async with client.post(f"/v1/jobs/{job_id}/retry", json={"from_checkpoint": "latest"}) as response:
            assert response.status == 410
            assert (await response.json())["error"]["code"] == "files_removed"
        async with client.post(f"/v1/jobs/{job_id}/retry", json={}) as response:
            assert response.status == 201


async def test_by_age_only_what_is_old_enough_goes(state_dir: Path) -> None:
    async with served(state_dir) as (house, _):
        job_id = await ended_job(house)
        await keeper_of(house, Policy(days=2), days_later=1.9).look()
        assert (await house.queries.job(job_id)).files_removed is None
        await keeper_of(house, Policy(days=2), days_later=2.1).look()
        await gone(house, job_id)


async def test_without_a_policy_it_is_only_looked(state_dir: Path) -> None:
    async with served(state_dir) as (house, _):
        job_id = await ended_job(house)
        keeper = keeper_of(house, Policy(), days_later=10_000)
        await keeper.look()
        assert (await house.queries.job(job_id)).files_removed is None
        assert keeper.inventory.taken is not None
        assert keeper.inventory.taken.ended_jobs >= 64 * KIB


async def test_files_of_live_jobs_of_others_and_set_aside_ones_are_counted_and_stay(state_dir: Path) -> None:
    async with served(state_dir) as (house, _):
        aside = await ended_job(house)
        live = await house.accept_job()
        for path in (f"{aside}/attempts/quarantine-1-1", f"{live}/attempts/1", "job-of-nobody"):
            await anyio.Path(house.jobs_dir / path).mkdir(parents=True)
            await anyio.Path(house.jobs_dir / path / "file").write_bytes(bytes(64 * KIB))
        keeper = keeper_of(house, Policy(days=1, bytes=0), days_later=10_000)
        await keeper.look()
        await keeper.look()
        taken = keeper.inventory.taken
        assert taken is not None
        assert (taken.live_jobs >= 64 * KIB, taken.unknown_jobs >= 64 * KIB, taken.ended) == (True, True, ())
        assert taken.ended_jobs >= 128 * KIB
        assert taken.log > 0
        for name in (aside, live, "job-of-nobody"):
            assert (house.jobs_dir / name).exists()


async def test_files_of_a_registered_model_stay_and_count_against_the_others(state_dir: Path) -> None:
    async with served(state_dir) as (house, _):
        needed, other = await ended_job(house), await ended_job(house)
        model = facts.ModelRegistered(
            name="mine", path=str(house.jobs_dir / needed), kind="model", base=None, lineage={}, job=needed
        )
        await house.log.append([event("model/mine", model, "test")])
        await keeper_of(house, Policy(bytes=100 * KIB)).look()
        await gone(house, other)
        assert (await house.queries.job(needed)).files_removed is None


def test_a_real_daemon_removes_what_it_is_told_to_and_shows_what_takes_the_disk(tmp_path: Path) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text("keep_jobs_bytes = 4000000\n", encoding="utf-8")
    with running(FINETUNED_CONFIG=str(settings)) as daemon:
        old, new = (daemon.submit(steps=1, artifact_bytes=3_000_000) for _ in range(2))
        for job_id in (old, new):
            assert daemon.wait_for(job_id)["state"] == "succeeded"
        daemon.stop()
        daemon.start()  # soon after its start it looks
        eventually(lambda: daemon.job(old)["files_removed"] or daemon.job(new)["files_removed"], what="room")
        removed, kept = (old, new) if daemon.job(old)["files_removed"] else (new, old)
        assert daemon.job(removed)["finished_at"] < daemon.job(kept)["finished_at"]
        eventually(lambda: not (daemon.state / "jobs" / removed).exists(), what="the files' end")
        assert (daemon.state / "jobs" / kept).exists()
        taken = daemon.ok("GET", "/v1/system")["disk"]["taken"]
        assert taken["ended_jobs_bytes"] >= 3_000_000
        assert taken["reserve_bytes"] >= 16 << 20
