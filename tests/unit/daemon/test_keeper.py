"""The keeper of the disk, beside everything else that the event loop does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from tests.unit.domain.worlds import Scene

from finetuned.domain.retention import Kept, Policy
from finetuned.domain.world import World
from finetuned.storage.keeper import Keeper

ENDED = 2_000


class Counted:
    """A world that counts how often its live jobs are gone through."""

    def __init__(self, world: World) -> None:
        self.looks = 0
        self.datasets, self.models, self.files = world.datasets, world.models, world.files
        self._world = world

    def live_jobs(self) -> Any:
        self.looks += 1
        return self._world.live_jobs()


class Removals:
    """Takes the place of the commands."""

    def __init__(self) -> None:
        self.of: list[str] = []

    async def remove_files(self, job_id: str, **_: object) -> bool:
        self.of.append(job_id)
        return True


@pytest.mark.anyio
async def test_the_world_is_gone_through_once_for_all_ended_jobs() -> None:
    scene = Scene()
    scene.submit("job-live", resume_from="/state/jobs/job-7/attempts/1/checkpoints/checkpoint-4")
    world, removals = Counted(scene.world), Removals()
    kept = tuple(Kept(f"job-{number}", number, 1) for number in range(ENDED))

    async def look() -> SimpleNamespace:
        return SimpleNamespace(ended=kept, ended_jobs=ENDED)

    async def of_board() -> Counted:
        return world

    keeper = Keeper(
        board=cast("Any", SimpleNamespace(world=of_board)),
        inventory=cast("Any", SimpleNamespace(look=look)),
        commands=cast("Any", removals),
        policy=Policy(bytes=2),
        now=lambda: ENDED,
    )
    await keeper.look()
    assert world.looks == 1
    assert len(removals.of) == ENDED - 2
    assert "job-7" not in removals.of


@pytest.mark.anyio
async def test_what_cannot_be_looked_at_is_looked_at_again_and_ends_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks = 0
    seen = anyio.Event()

    async def look() -> SimpleNamespace:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise PermissionError(13, "Permission denied", "/state/jobs")
        seen.set()
        return SimpleNamespace(ended=(), ended_jobs=0)

    keeper = Keeper(
        board=cast("Any", None),
        inventory=cast("Any", SimpleNamespace(look=look)),
        commands=cast("Any", None),
        policy=Policy(),
        look_s=0,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run)
        with anyio.fail_after(10):
            await seen.wait()
        tasks.cancel_scope.cancel()
    assert caplog.text.count("cannot be looked at") == 2
    assert "/state/jobs" in caplog.text
