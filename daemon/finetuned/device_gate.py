"""The gate before a free GPU: nothing starts on it while something of ours is left there, or without a look at it.

A GPU that no attempt holds may still be taken: by a process that an attempt left, which is waited for, or by a stranger
such as a desktop or another daemon's attempt, which is reported and leaves the job what is free. Holders are found by
NVML, and by descriptors and environment in ``/proc``, never by their names. Looked at only while a job is queued and a GPU free.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import anyio
import anyio.to_thread

from finetuned.attempts.oom import bytes_text
from finetuned.board import Board
from finetuned.domain import facts
from finetuned.domain.situation import Hold
from finetuned.domain.states import JobState
from finetuned.domain.world import World
from finetuned.patience import patiently
from finetuned.store import Log
from finetuned.telemetry import processes
from finetuned.telemetry.gpus import Gpu
from finetuned.telemetry.marks import Marks
from finetuned.telemetry.processes import Table
from finetuned.telemetry.telemetry import Attempts, Key

POLL_S: Final = 2.0  # between two looks while they are needed
VALID_S: Final = 10.0  # a look that is older says nothing
NAMED: Final = 3  # holders that are named
UNSEEN: Final = (
    0.05  # of a GPU's memory: what is taken by nobody beyond that belongs to somebody who cannot be seen
)
NOT_LOOKED: Final = Hold("nobody that is known: it is being looked at", passing=True)


class _Look(NamedTuple):
    at: float
    hold: Hold | None


class DeviceGate:
    """Says which free GPUs are held all the same. ``changed`` is called when that is something new.

    ``look`` gives the GPUs as they are now, ``attempts`` the live ones by the pids of their runners, ``marked`` the
    processes that carry the mark of an attempt of this daemon, and of no other.
    """

    def __init__(
        self,
        log: Log,
        board: Board,
        look: Callable[[], Awaitable[tuple[Gpu, ...]]],
        attempts: Attempts,
        *,
        changed: Callable[[], None],
        marked: Callable[[], Marks],
        table: Callable[[], Table] = processes.read_table,
        poll_s: float = POLL_S,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._log = log
        self._board = board
        self._look = look
        self._attempts = attempts
        self._changed = changed
        self._table = table
        self._marked = marked
        self._poll_s = poll_s
        self._clock = clock
        self._looks: dict[str, _Look] = {}
        self._seq = 0  # up to where the log was searched for devices that were released
        self._wanted: frozenset[str] = frozenset()

    def holds(self) -> dict[str, Hold]:
        """The free GPUs that are not free, by device; those that nobody looked at in time are among them."""
        self._forget_released()
        oldest = self._clock() - VALID_S
        found = {}
        for device in wanted(self._board.newest):
            look = self._looks.get(device)
            hold = NOT_LOOKED if look is None or look.at < oldest else look.hold
            if hold is not None:
                found[device] = hold
        return found

    async def run(self) -> None:
        """Look whenever it is needed, until cancelled."""
        while True:
            head = self._log.head
            with anyio.move_on_after(await patiently("The look at free GPUs", self.step)):
                await self._log.wait(head)

    async def step(self) -> float:
        """Look at the free GPUs if that is needed; in how many seconds to come again if nothing happens."""
        devices = wanted(await self._board.world())
        self._forget_released()
        now = self._clock()
        due = [
            device
            for device in devices
            if (look := self._looks.get(device)) is None or now - look.at >= self._poll_s
        ]
        if due:
            await self._look_at(devices)
        return self._poll_s if devices else float("inf")

    async def _look_at(self, devices: frozenset[str]) -> None:
        before = self.holds()
        seq = self._log.head
        attempts, gpus, now = await self._attempts(), await self._look(), self._clock()
        table, marked = await anyio.to_thread.run_sync(lambda: (self._table(), self._marked()))
        by_id = {gpu.id: gpu for gpu in gpus}
        self._looks = {
            device: _Look(now, hold_of(by_id[device], attempts, table, marked) if device in by_id else None)
            for device in _unless(devices, self._released_since(seq))
        }
        if self.holds() != before:
            self._changed()

    def _forget_released(self) -> None:
        """What was looked at before its last holder left says nothing."""
        released = self._released_since(self._seq)
        self._seq = self._log.head
        for device in set(self._looks) if released is None else released & self._looks.keys():
            del self._looks[device]

    def _released_since(self, seq: int) -> frozenset[str] | None:
        """The devices that were released after a position; ``None`` if that cannot be told any more."""
        events = self._log.recent(seq)
        if events is None:
            return None
        released = (event for event in events if event.type == facts.DeviceReleased.type)
        return frozenset(device for event in released for device in event.data["devices"])


def _unless(devices: frozenset[str], released: frozenset[str] | None) -> frozenset[str]:
    return frozenset() if released is None else devices - released


def wanted(world: World) -> frozenset[str]:
    """The GPUs that no attempt holds, while a job is queued that could want one."""
    if not any(job.state is JobState.QUEUED and job.devices for job in world.live_jobs()):
        return frozenset()
    return frozenset(
        slot.id
        for slot in world.slots.values()
        if slot.kind == "gpu" and slot.holder is None and not slot.gone
    )


class _Holder(NamedTuple):
    pid: int
    memory: int | None
    key: Key | None  # of an attempt
    live: bool = False


def hold_of(gpu: Gpu, attempts: Mapping[int, Key], table: Table, marked: Marks) -> Hold | None:
    """Why a GPU that no attempt holds is not free; ``None`` if it is. Pure."""
    if gpu.problem is not None:
        return Hold(f"a fault of {gpu.id}: {gpu.problem}")
    holders = _holders(gpu, attempts, table, marked)
    left = [each for each in holders if each.key is not None and not each.live]
    if left:
        return Hold(_named(left, table), passing=True)
    free = 0 if gpu.memory_total is None else gpu.memory_total - (gpu.memory_used or 0)
    if holders:
        return Hold(f"{_named(holders, table)}; {bytes_text(free)} are free", free)
    if gpu.memory_total is not None and gpu.memory_total - free > UNSEEN * gpu.memory_total:
        taken = bytes_text(gpu.memory_total - free)
        return Hold(
            f"processes that cannot be seen, with {taken} of {gpu.id}; {bytes_text(free)} are free", free
        )
    return None


def _holders(gpu: Gpu, attempts: Mapping[int, Key], table: Table, marked: Marks) -> list[_Holder]:
    """Who is on the GPU; by their descriptors only those of attempts that have ended: CUDA opens more nodes than it uses."""
    found: dict[int, _Holder] = {}
    live = set(attempts.values())
    for each in gpu.processes:
        if each.pid not in table and each.pid not in marked:
            continue  # it has ended since
        root = processes.owner(each.pid, attempts, table)
        mark = marked.get(each.pid)
        key = attempts[root] if root is not None else None if mark is None else (mark.job, mark.attempt)
        found[each.pid] = _Holder(each.pid, each.memory, key, live=key in live)
    for pid, mark in marked.items():
        key = mark.job, mark.attempt
        if pid not in found and gpu.minor in mark.nodes and key not in live:
            found[pid] = _Holder(pid, None, key)
    return sorted(found.values(), key=lambda each: (-(each.memory or 0), each.pid))


def _named(holders: list[_Holder], table: Table) -> str:
    said = [_sentence(each, table) for each in holders[:NAMED]]
    more = len(holders) - len(said)
    return ", ".join(said) + (f" and {more} more" if more else "")


def _sentence(holder: _Holder, table: Table) -> str:
    seen = table.get(holder.pid)
    whose = f" ({seen.name})" if seen is not None and seen.name else ""
    if holder.key is not None:
        job, number = holder.key
        whose = f" of attempt {number} of {job}" + ("" if holder.live else ", which has ended")
    memory = "" if holder.memory is None else f" with {bytes_text(holder.memory)} of it"
    return f"pid {holder.pid}{whose}{memory}"
