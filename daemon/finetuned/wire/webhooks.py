"""Webhooks."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class WebhookFailure(TypedDict):
    """A try that failed: when, why, and how many failed in a row by now (0: it was taken since)."""

    at: str
    reason: str
    tries: int


class Webhook(TypedDict):
    """Where events are sent to. Times are RFC 3339 or null.

    ``position`` is up to where all was sent, ``lag`` how many events there are beyond it, wanted or not;
    ``recorded`` is the position after which a daemon that is killed begins again.
    """

    id: str
    object: Literal["webhook"]
    url: str
    types: list[str]
    name: str | None
    enabled: bool
    disabled_reason: str | None
    created_at: str
    position: int
    recorded: int
    lag: int
    last_failure: WebhookFailure | None
    next_try_at: str | None


class NewWebhook(Webhook):
    """A webhook just made: ``secret`` is what its receiver verifies signatures with, and is never shown again."""

    secret: str


class WebhookSecret(TypedDict):
    """A new secret, never shown again. The one before signs too until ``old_until``; null: no more."""

    id: str
    object: Literal["webhook.secret"]
    secret: str
    old_until: str | None


class WebhookTest(TypedDict):
    """What came of a test: the ``status`` of the answer and the beginning of its ``body``, or the ``error``."""

    id: str
    object: Literal["webhook.test"]
    delivered: bool
    status: int | None
    error: str | None
    body: str | None
    seconds: float
