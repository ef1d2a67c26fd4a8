"""Decisions about webhooks: given the world and an intent, the events that follow. Pure."""

from __future__ import annotations

from typing import Final

from finetuned.domain import facts
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.registers import Webhook
from finetuned.domain.streams import event
from finetuned.domain.world import World
from finetuned_events import NewEvent

Events = list[NewEvent]

MOST: Final = 100  # webhooks: each has a connection and a place in the log of its own
ACTOR: Final = "webhooks"  #: who records what came of deliveries


def create(world: World, fact: facts.WebhookCreated, *, actor: str) -> Events:
    """Begin to send. Rejected beyond so many that each could still be served."""
    if len(world.webhooks) >= MOST:
        raise Rejected(
            "too_many_webhooks",
            f"There are {MOST} webhooks, and no more are kept; remove one (`finetune webhooks rm`) first.",
        )
    return [event(f"webhook/{fact.id}", fact, actor)]


def enable(world: World, webhook_id: str, *, since: int | None, actor: str) -> Events:
    """Send again, from where it stopped or from ``since`` on. One that is enabled changes nothing.

    Rejected if it is enabled and is to go on from elsewhere: that is a replay.
    """
    webhook = of(world, webhook_id)
    if webhook.disabled is None and since is None:
        return []
    if webhook.disabled is None:
        raise Rejected(
            "webhook_enabled",
            f"The webhook {webhook_id} is enabled; to send events again, replay them"
            f" (`finetune webhooks replay {webhook_id}`).",
        )
    position = webhook.since if since is None else since
    return [_event(facts.WebhookEnabled(id=webhook_id, since=position), actor)]


def replay(world: World, webhook_id: str, *, since: int, actor: str) -> Events:
    """Go on from another position. One that is disabled is rejected."""
    webhook = of(world, webhook_id)
    if webhook.disabled is not None:
        raise Rejected(
            "webhook_disabled",
            f"The webhook {webhook_id} is disabled ({webhook.disabled}), nothing would be sent; enable it first"
            f" (`finetune webhooks enable {webhook_id}`).",
        )
    return [_event(facts.WebhookReplayed(id=webhook_id, since=since), actor)]


def rotate(world: World, webhook_id: str, *, keep_s: int, actor: str) -> Events:
    """Record that it has a new secret."""
    of(world, webhook_id)
    return [_event(facts.WebhookRotated(id=webhook_id, keep_s=keep_s), actor)]


def delete(world: World, webhook_id: str, *, actor: str) -> Events:
    """End it."""
    of(world, webhook_id)
    return [_event(facts.WebhookDeleted(id=webhook_id), actor)]


def delivered(world: World, webhook_id: str, *, turn: int, upto: int) -> Events:
    """Record how far deliveries have come, unless somebody has said meanwhile where they go on."""
    webhook = _in_turn(world, webhook_id, turn)
    if webhook is None or (upto <= webhook.since and not webhook.tries):
        return []
    return [_event(facts.WebhookDelivered(id=webhook_id, upto=upto), ACTOR)]


def failed(world: World, fact: facts.WebhookFailed, *, turn: int) -> Events:
    """Record a try that failed, and how far deliveries have come before it."""
    return [] if _in_turn(world, fact.id, turn) is None else [_event(fact, ACTOR)]


def disable(world: World, fact: facts.WebhookFailed, reason: str, *, turn: int) -> Events:
    """Record the last try that failed, and send nothing any more."""
    if _in_turn(world, fact.id, turn) is None:
        return []
    return [_event(each, ACTOR) for each in (fact, facts.WebhookDisabled(id=fact.id, reason=reason))]


def of(world: World, webhook_id: str) -> Webhook:
    """The webhook. Raises ``NotFoundError``."""
    found = world.webhooks.get(webhook_id)
    if found is None:
        raise NotFoundError(
            f"There is no webhook {webhook_id!r}; `finetune webhooks` lists them.", param="webhook_id"
        )
    return found


def _in_turn(world: World, webhook_id: str, turn: int) -> Webhook | None:
    """The webhook, if nothing was said about it since ``turn``."""
    found = world.webhooks.get(webhook_id)
    return found if found is not None and found.turn == turn and found.disabled is None else None


def _event(fact: facts.Fact, actor: str) -> NewEvent:
    return event(f"webhook/{fact.to_data()['id']}", fact, actor)
