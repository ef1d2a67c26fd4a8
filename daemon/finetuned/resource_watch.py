"""Watches over what live attempts take: says how their limits are kept and when something fills up, and keeps their
disk. Follows the telemetry's looks; what the runner keeps itself (memory, processors) it only tells of.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from pathlib import Path

import anyio.to_thread

from finetuned.attempts import limits, memory
from finetuned.attempts.oom import bytes_text
from finetuned.attempts.ports import Alert, AttemptLog, Intervention
from finetuned.board import Board
from finetuned.domain.job import Attempt, Job
from finetuned.patience import FATAL, patiently
from finetuned.telemetry.telemetry import Key, Snapshot, Telemetry
from finetuned.telemetry.thresholds import Crossings, Fill, is_high
from finetuned_events import LogError
from finetuned_sdk.bundle import Bundle, BundleError, read_json

logger = logging.getLogger(__name__)

_BLOCK = 512  # bytes: the unit of st_blocks


class ResourceWatch:
    """Looks at each live attempt after each look at the machine.

    ``bundle`` gives an attempt's files, ``notice`` has the supervision ask the log what is to end.
    """

    def __init__(
        self,
        board: Board,
        telemetry: Telemetry,
        log: AttemptLog,
        *,
        bundle: Callable[[str, int], Bundle],
        notice: Callable[[], None],
        proportional: Callable[[list[int]], int] = memory.proportional,
    ) -> None:
        self._board = board
        self._telemetry = telemetry
        self._log = log
        self._bundle = bundle
        self._notice = notice
        self._proportional = proportional
        self._crossings = Crossings()
        self._told: set[Key] = set()  # how the limits of these are kept
        self._waits = False  # what was seen last could not be recorded

    async def run(self) -> None:
        """Watch until cancelled."""
        seen: Snapshot | None = None
        while True:
            seen = await self._telemetry.after(seen)
            await patiently("The watch over what attempts take", partial(self.look, seen))

    async def look(self, snapshot: Snapshot) -> None:
        """Look at all live attempts now."""
        world = await self._board.world()
        live = [(job, job.live_attempt) for job in world.live_jobs()]
        found = {
            (job.id, each.number): (job, each) for job, each in live if each is not None and each.started_at
        }
        self._told &= found.keys()
        fills: list[tuple[Key, str, Fill]] = []
        for key, (job, attempt) in found.items():
            if job.limits and key not in self._told:
                await self._tell_limits(job, attempt)
            for subject, fill in fills_of(job, attempt, snapshot):
                shared = fill.key == (*key, "memory") and is_high(fill)
                fills.append((key, subject, await self._counted_once(attempt, fill) if shared else fill))
            if "disk" in job.limits:
                fills.append((key, "disk", await self._disk(job, attempt)))
        crossed = {fill.key for fill in self._crossings.crossed(fill for _, _, fill in fills)}
        for (job_id, number), subject, fill in fills:
            if fill.key in crossed:
                alert = Alert(subject=subject, message=fill.what, figures={"used": fill.used, "of": fill.of})
                if not await self._record((job_id, number), alert):
                    self._crossings.forget(fill.key)  # and so it is told at the next look, if it is still so

    async def _record(self, key: Key, what: Alert | Intervention) -> bool:
        """Whether it could be: on a full disk it waits for the next look, and nothing else does."""
        try:
            await self._log.intervened(*key, what)
        except FATAL:
            raise
        except (LogError, OSError) as error:
            if not self._waits:
                logger.warning(
                    "what attempt %d of job %s takes cannot be recorded: %s", key[1], key[0], error
                )
            self._waits = True
            return False
        self._waits = False
        return True

    async def _counted_once(self, attempt: Attempt, fill: Fill) -> Fill:
        """What the attempt holds against its limit, pages that its processes share counted once."""
        assert attempt.pid is not None  # or nothing would be known of its use
        held = await anyio.to_thread.run_sync(lambda: self._proportional(memory.below(attempt.pid or 0)))
        return _against_limit(fill.key, held, fill.of, "memory")

    async def _tell_limits(self, job: Job, attempt: Attempt) -> None:
        key = (job.id, attempt.number)
        if any(each["subject"] == "limits" and each["attempt"] == attempt.number for each in job.alerts):
            self._told.add(key)  # by the daemon before this one
            return
        means = await anyio.to_thread.run_sync(_means, self._bundle(job.id, attempt.number).limits_path)
        message = kept(job.limits, means, has_gpu=any(each.startswith("gpu:") for each in attempt.devices))
        alert = Alert(subject="limits", message=message, figures=job.limits)
        if await self._record(key, alert):
            self._told.add(key)

    async def _disk(self, job: Job, attempt: Attempt) -> Fill:
        """What the attempt's files take; it is stopped if that is too much."""
        limit = job.limits["disk"]
        used = await anyio.to_thread.run_sync(size, self._bundle(job.id, attempt.number))
        what = f"its files take {bytes_text(used)}, of {bytes_text(limit)} that its limit allows"
        if used > limit and attempt.stopping is None:
            reason = f"its files take {bytes_text(used)}, more than its limit of {bytes_text(limit)}"
            stop = Intervention(action="request_stop", failure="limit", reason=reason)
            if await self._record((job.id, attempt.number), stop):
                self._notice()
        return Fill((job.id, attempt.number, "disk"), used, limit, what)


def fills_of(job: Job, attempt: Attempt, snapshot: Snapshot) -> Iterator[tuple[str, Fill]]:
    """What may fill up under an attempt, with the subject of its alert."""
    key = (job.id, attempt.number)
    machine = snapshot.host.memory
    if machine.total:
        what = f"the machine has {bytes_text(machine.available)} of its {bytes_text(machine.total)} of memory left"
        yield "memory", Fill((*key, "host"), machine.used, machine.total, what)
    usage = snapshot.usage.get(key)
    if usage is not None and "memory" in job.limits:
        yield "memory", _against_limit((*key, "memory"), usage.rss, job.limits["memory"], "memory")
    for gpu in snapshot.gpus:
        if gpu.id not in attempt.devices:
            continue
        if gpu.memory_used is not None and gpu.memory_total:
            used, total = bytes_text(gpu.memory_used), bytes_text(gpu.memory_total)
            what = f"{used} of the {total} of {gpu.id} are in use"
            yield "device_memory", Fill((*key, gpu.id), gpu.memory_used, gpu.memory_total, what)
        mine = None if usage is None else usage.gpu_memory.get(gpu.id)
        if mine is not None and "gpu_memory" in job.limits:
            limit = job.limits["gpu_memory"]
            yield "device_memory", _against_limit((*key, gpu.id, "limit"), mine, limit, f"memory of {gpu.id}")


def _against_limit(key: Hashable, used: float, limit: float, of: str) -> Fill:
    what = f"its processes hold {bytes_text(used)} of {of}; its limit is {bytes_text(limit)}"
    return Fill(key, used, limit, what)


def kept(wanted: Mapping[str, float], means: Mapping[str, str], *, has_gpu: bool) -> str:
    """How each limit is kept, in words. ``means`` is what the runner said of memory and processors."""
    said = []
    if "memory" in wanted:
        said.append(
            f"memory up to {bytes_text(wanted['memory'])}: {_MEMORY.get(means.get('memory', ''), _UNKNOWN)}"
        )
    if "cpu" in wanted:
        said.append(f"processors up to {wanted['cpu']:g}: {_CPU.get(means.get('cpu', ''), _UNKNOWN)}")
    if "gpu_memory" in wanted:
        how = "kept by torch's allocator" if has_gpu else "it has no GPU"
        said.append(f"memory of each GPU up to {bytes_text(wanted['gpu_memory'])}: {how}")
    if "disk" in wanted:
        said.append(f"files up to {bytes_text(wanted['disk'])}: looked at by the daemon")
    why = means.get("why")
    return "; ".join(said) + (f" (no control group: {why})" if why else "")


_UNKNOWN = "its runner does not say how it keeps that"
_MEMORY = {
    limits.GROUP: "kept by the kernel, in a control group",
    limits.WATCHED: "looked at by its runner, which ends it above",
}
_CPU = {
    limits.GROUP: "kept by the kernel, in a control group",
    limits.AFFINITY: "it is given whole ones of the machine's",
}


def size(bundle: Bundle) -> int:
    """The bytes on disk of an attempt's files, its temporary ones among them. Blocks."""
    roots = [bundle.path]
    with contextlib.suppress(OSError):
        roots.append(bundle.path / bundle.temporary.readlink())
    return sum(_blocks(path) for root in roots for path in _files(root)) * _BLOCK


def _files(root: Path) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        yield from (os.path.join(directory, name) for name in names)  # noqa: PTH118 - a Path each is slow


def _blocks(path: str) -> int:
    try:
        return os.lstat(path).st_blocks
    except OSError:  # removed meanwhile
        return 0


def _means(path: Path) -> dict[str, str]:
    try:
        return read_json(path) or {}
    except (BundleError, OSError):
        return {}
