"""What would come of a request if it were submitted now; pure, nothing is recorded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finetuned.domain import facts, queue
from finetuned.domain.job import Job, submitted
from finetuned.domain.situation import Situation
from finetuned.domain.states import JobState
from finetuned.domain.waits import wait_of
from finetuned.domain.world import World
from finetuned.estimates import checks
from finetuned.estimates.fixes import Fix
from finetuned.estimates.history import Duration
from finetuned_sdk import Estimate

ID = "job-dry-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Whether the job would start at once, on which devices, or else what it would wait for.

    ``after_validation`` is said of a kind whose data are checked before.
    """

    now: bool
    devices: tuple[str, ...]
    reason: str | None
    position: int | None
    after_validation: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """A request as it would be run, what it would take, what speaks against it, and when it would start."""

    kind: str
    accepted: bool
    params: Mapping[str, Any]
    devices: int
    estimate: Estimate
    duration: Duration
    checks: list[checks.Check]
    fixes: list[Fix]
    start: Start


def start_of(fact: facts.JobSubmitted, world: World, situation: Situation, *, now: int) -> Start:
    """When the job would start, if its data were valid and it were queued at ``now`` (microseconds)."""
    job = _queued(fact, now)
    live, slots = [*world.live_jobs(), job], list(world.slots.values())
    claim = next((each for each in queue.plan(live, slots, situation) if each.job.id == ID), None)
    wait = wait_of(job, live, slots, situation)
    return Start(
        now=claim is not None,
        devices=() if claim is None else claim.devices,
        reason=None if claim is not None or wait is None else wait.reason,
        position=None if wait is None else wait.position,
        after_validation=fact.validates,
    )


def _queued(fact: facts.JobSubmitted, now: int) -> Job:
    job = submitted(ID, fact, seq=sys.maxsize, at=now, actor="dry-run")
    return replace(job, state=JobState.QUEUED)
