"""The way in for what is done to workers by hand: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from finetuned.commands.appending import Appending
from finetuned.domain import worker_decisions
from finetuned.domain.engines import Demand
from finetuned.domain.idempotency import Once
from finetuned.domain.job import Job
from finetuned.queries.door import Queries
from finetuned.telemetry.gpus import Gpu

END_S: Final = 60.0  # that the engines may take to end
FREE_LOOKS: Final = (
    20  # at the GPUs until the memory of what has ended is seen to be free: a driver takes a moment
)
LOOK_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearing:
    """What ending the idle engines gave back: the GPUs ``before`` and ``after``; ``asked`` are engines that go on."""

    ended: Sequence[str]
    asked: Sequence[str]
    before: Sequence[Gpu]
    after: Sequence[Gpu]

    @property
    def freed(self) -> int:
        """Bytes on all GPUs together."""
        after = {gpu.id: gpu.memory_used for gpu in self.after}
        pairs = ((gpu.memory_used, after.get(gpu.id)) for gpu in self.before)
        return sum(max(0, was - now) for was, now in pairs if was is not None and now is not None)

    @property
    def message(self) -> str:
        """What came of it, in a sentence."""
        ended = f"{len(self.ended)} idle engine{'' if len(self.ended) == 1 else 's'} ended"
        busy = f"; {len(self.asked)} are asked and go on" if self.asked else ""
        if not self.before:
            return f"{ended}{busy}. This host shows no GPU: there is no device memory to prove it by."
        return f"{ended}{busy}; {self.freed / 1e6:.0f} MB of device memory came back."


@dataclass(slots=True)
class WorkerCommands:
    """What can be done to workers. ``online`` tells of requests for engines that no event tells of."""

    appending: Appending
    queries: Queries
    online: Callable[[], Demand] = Demand

    async def restart(self, job_id: str, *, actor: str, once: Once | None = None) -> Job:
        """Have a worker leave and come again. Raises ``NotFoundError`` or ``Rejected``."""
        await self.appending.execute(
            lambda world: worker_decisions.restart(world, job_id, actor=actor),
            subject=f"job/{job_id}",
            actor=actor,
            once=once,
        )
        return await self.queries.job(job_id)

    async def kill(self, job_id: str, *, actor: str, once: Once | None = None) -> Job:
        """Kill a worker's processes at once. Raises ``NotFoundError`` or ``Rejected``."""
        await self.appending.execute(
            lambda world: worker_decisions.kill(world, job_id, actor=actor),
            subject=f"job/{job_id}",
            actor=actor,
            once=once,
            necessary=True,
        )
        return await self.queries.job(job_id)

    async def clear_gpu(self, *, actor: str) -> Clearing:
        """End the engines that nobody asks, and look at the GPUs before and afterwards."""
        telemetry = self.queries.observation.telemetry
        before = await telemetry.gpus_now()
        idle, asked = worker_decisions.idle(await self.appending.board.world(), self.online())
        jobs = frozenset(each.id for each in idle)
        if jobs:
            await self.appending.log.execute(
                lambda world: worker_decisions.clear(world, jobs, actor=actor), necessary=True
            )
            await self._ended(jobs)
        after = await telemetry.gpus_now()
        held = {device for each in idle if each.attempt for device in each.attempt.devices}
        for _ in range(FREE_LOOKS):
            if _are_free(held, before, after):
                break
            await anyio.sleep(LOOK_S)
            after = await telemetry.gpus_now()
        return Clearing(
            ended=sorted(jobs), asked=sorted(each.id for each in asked), before=before, after=after
        )

    async def _ended(self, jobs: frozenset[str]) -> None:
        """Wait until nothing of these jobs lives any more."""
        with anyio.move_on_after(END_S):
            while True:
                head = self.appending.log.head
                world = await self.appending.board.world()
                if not any(each.id in jobs for each in world.live_jobs()):
                    return
                await self.appending.log.wait(head)


def _are_free(held: set[str], before: Sequence[Gpu], after: Sequence[Gpu]) -> bool:
    """Whether each device that an engine held has less memory in use than before."""
    now = {gpu.id: gpu.memory_used or 0 for gpu in after}
    return all(now.get(gpu.id, 0) < (gpu.memory_used or 0) for gpu in before if gpu.id in held)
