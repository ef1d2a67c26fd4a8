"""Webhooks: where events are sent to, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from finetuned.domain.facts.base import Fact


@dataclass(frozen=True, kw_only=True)
class WebhookCreated(Fact):
    """Events that ``types`` names are sent to ``url`` from the position ``since`` on. Its secret is in a file."""

    type: ClassVar[str] = "webhook.created"
    id: str
    url: str
    types: list[str]
    since: int
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class WebhookDelivered(Fact):
    """All that was to be sent up to a position was taken. It stands for many deliveries, or for those of some seconds."""

    type: ClassVar[str] = "webhook.delivered"
    id: str
    upto: int


@dataclass(frozen=True, kw_only=True)
class WebhookFailed(Fact):
    """What follows the position ``upto`` was not taken, for the ``tries``-th time in a row."""

    type: ClassVar[str] = "webhook.failed"
    id: str
    upto: int
    tries: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class WebhookDisabled(Fact):
    """Nothing is sent any more until it is enabled: the receiver is gone, or failed for too long."""

    type: ClassVar[str] = "webhook.disabled"
    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class WebhookEnabled(Fact):
    """Events are sent again, from the position ``since`` on."""

    type: ClassVar[str] = "webhook.enabled"
    id: str
    since: int


@dataclass(frozen=True, kw_only=True)
class WebhookReplayed(Fact):
    """Somebody had it go on from the position ``since``, whatever was sent already."""

    type: ClassVar[str] = "webhook.replayed"
    id: str
    since: int


@dataclass(frozen=True, kw_only=True)
class WebhookRotated(Fact):
    """It has a new secret. The one before signs too for ``keep_s`` seconds."""

    type: ClassVar[str] = "webhook.rotated"
    id: str
    keep_s: int


@dataclass(frozen=True, kw_only=True)
class WebhookDeleted(Fact):
    """It is gone, and so is its secret."""

    type: ClassVar[str] = "webhook.deleted"
    id: str
