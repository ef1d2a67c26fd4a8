"""Decisions: given the world and an intent, the events that follow, or ``Rejected``.

Each function is pure and runs on the log's writer thread against a world that includes everything decided
before it in the same batch. It returns ``NewEvent``s and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from finetuned.domain import (
    alias_decisions,
    dataset_decisions,
    dependencies,
    facts,
    files,
    model_names,
    pauses,
    queue,
    salvage,
    tokens,
)
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.situation import CALM, Situation
from finetuned.domain.states import JobState
from finetuned.domain.streams import event, job_event
from finetuned.domain.world import World
from finetuned.spelling import nearest
from finetuned_events import NewEvent

Json = Any
Events = list[NewEvent]

# ---- what users ask for ----------------------------------------------------------------------------------


def submit(
    world: World,
    job_id: str,
    fact: facts.JobSubmitted,
    *,
    actor: str,
    advice: Iterable[facts.JobAdvice] = (),
) -> Events:
    """Accept a job. Rejected if its id is taken, or if it needs more devices than there are or what was removed.

    ``advice`` is what was found about it at the door.
    """
    if job_id in world.jobs:
        raise Rejected("job_exists", f"There is a job {job_id} already.")
    if fact.devices > len(world.slots):
        raise Rejected(
            "too_many_devices",
            f"The job asks for {fact.devices} devices and this host has {len(world.slots)}; ask for fewer.",
            param="devices",
        )
    dataset_decisions.require(world, fact.datasets)
    dependencies.require(world, fact)
    return [job_event(job_id, each, actor=actor) for each in (fact, *advice)]


def cancel(
    world: World,
    job_id: str,
    *,
    actor: str,
    reason: str | None = None,
    salvaged: salvage.Salvage | None = salvage.NOTHING,
) -> Events:
    """Ask a job to end. Asking twice changes nothing; an ended job is rejected.

    ``salvaged`` is what was made of its leftovers in case that it ends at once. Raises ``SalvageDueError`` if it does and
    they were not looked at.
    """
    job = world.job(job_id)
    if job.state is JobState.CANCELLING:
        return []
    if not job.is_live:
        raise Rejected(
            "job_ended", f"Job {job_id} has ended already ({job.state}); there is nothing left to cancel."
        )
    events = [job_event(job_id, facts.JobCancelRequested(reason=reason), actor=actor)]
    if job.live_attempt is None:
        events.append(job_event(job_id, facts.JobCancelled(), actor=actor))
    return files.with_made(job, salvage.placed(job, events, salvaged), actor=actor)


def delete(world: World, job_id: str, *, actor: str) -> Events:
    """Hide an ended job. A live one is rejected, and one whose files a model or a live job needs."""
    job = world.job(job_id)
    if job.is_live:
        raise Rejected(
            "job_live", f"Job {job_id} is {job.state}; cancel it first (`finetune cancel {job_id}`)."
        )
    dependencies.require_free(world, job_id)
    return [job_event(job_id, facts.JobDeleted(), actor=actor)]


def delete_model(world: World, name: str, *, actor: str) -> Events:
    """Free the name of a model, which its ``ft:`` name may say too. Rejected while an alias stands for it."""
    model = None if name in world.aliases else model_names.find(name, world.models, world.aliases)
    if model is None:
        known = nearest(name, model_names.known(world.models, {}))
        raise NotFoundError(f"There is no model {name!r}.{known} `finetune models` lists them.", param="name")
    alias_decisions.require_unnamed(world, model.name)
    return [event(f"model/{model.name}", facts.ModelDeleted(name=model.name), actor)]


def create_token(fact: facts.TokenCreated, *, actor: str) -> Events:
    """Record a new token."""
    return [event(f"token/{fact.id}", fact, actor)]


def revoke_token(world: World, token_id: str, *, actor: str) -> Events:
    """Close a token. Doing it twice changes nothing."""
    token = world.tokens.get(token_id)
    if token is None:
        raise NotFoundError(f"There is no token {token_id!r}; `finetune tokens list` shows them.", param="id")
    return [] if token.revoked_at else [event(f"token/{token_id}", facts.TokenRevoked(id=token_id), actor)]


def set_secret(fact: facts.SecretSet, *, actor: str) -> Events:
    """Record that a secret was stored."""
    return [event(f"secret/{fact.name}", fact, actor)]


def delete_secret(fact: facts.SecretDeleted, *, actor: str) -> Events:
    """Record that a secret was removed."""
    return [event(f"secret/{fact.name}", fact, actor)]


def use_tokens(world: World, used: Iterable[str], *, now: int) -> Events:
    """Record that tokens opened the door: of each that is there still, at most once an hour."""
    known = [world.tokens[token_id] for token_id in sorted(used) if token_id in world.tokens]
    return [
        event(f"token/{token.id}", facts.TokenUsed(id=token.id), f"token:{token.id}")
        for token in known
        if tokens.use_is_worth_recording(token, now)
    ]


# ---- what the daemon does --------------------------------------------------------------------------------


def daemon_started(version: str, pid: int) -> Events:
    """A daemon opened the log."""
    return [event("daemon", facts.DaemonStarted(version=version, pid=pid), "daemon")]


def daemon_draining(mode: str, reason: str | None, *, actor: str) -> Events:
    """The daemon starts nothing new any more."""
    return [event("daemon", facts.DaemonDraining(mode=mode, reason=reason), actor)]


def drain_taken_back(*, actor: str) -> Events:
    """The daemon goes on as before its drain."""
    return [event("daemon", facts.DaemonDrainTakenBack(), actor)]


def log_archived(upto: int, path: str, *, actor: str) -> Events:
    """The log's beginning is in a file."""
    return [event("log", facts.LogArchived(upto=upto, path=path), actor)]


def daemon_stopped() -> Events:
    """The daemon closes the log on purpose."""
    return [event("daemon", facts.DaemonStopped(), "daemon")]


def devices_detected(world: World, found: Sequence[Mapping[str, Json]]) -> Events:
    """Record the host's devices if they differ from what the log knows."""
    present = [slot for slot in world.slots.values() if not slot.gone]
    known = {slot.id: (slot.kind, slot.name, slot.memory_bytes) for slot in present}
    seen = {each["id"]: (each["kind"], each["name"], each["memory_bytes"]) for each in found}
    if known == seen:
        return []
    return [event("devices", facts.DevicesDetected(devices=[dict(each) for each in found]), "daemon")]


def schedule(world: World, *, elapsed: AbstractSet[tuple[str, int]], situation: Situation = CALM) -> Events:
    """Start every attempt that may start now, and ask those to leave that the next job may preempt.

    The claim and ``attempt.starting`` are one transaction. ``elapsed`` names the backoffs that are over (job,
    attempts so far), ``situation`` what else is not in the log.
    """
    situation = replace(situation, in_backoff=queue.in_backoff(world.live_jobs(), elapsed))
    slots = world.slots.values()
    events: Events = []
    for victim, by in queue.victims(world.live_jobs(), slots, situation):
        events.append(job_event(victim.id, pauses.preemption(victim, by), actor="scheduler"))
    for claim in queue.plan(world.live_jobs(), slots, situation):
        number = claim.job.next_attempt
        is_run = claim.purpose == "run"
        starting = facts.AttemptStarting(
            attempt=number,
            purpose=claim.purpose,
            devices=list(claim.devices),
            resume_from=claim.job.resume_from if is_run else None,
            overrides=claim.job.overrides if is_run else {},
        )
        events.append(job_event(claim.job.id, starting, actor="scheduler"))
        if claim.devices:
            claimed = facts.DeviceClaimed(devices=list(claim.devices), job=claim.job.id, attempt=number)
            events.append(event("devices", claimed, "scheduler"))
    return events
