"""How webhooks look to the outside. Pure."""

from __future__ import annotations

from finetuned import views, wire
from finetuned.queries.webhooks import ShownWebhook
from finetuned.webhooks.sender import Outcome


def webhook(shown: ShownWebhook) -> wire.Webhook:
    """A webhook without its secret."""
    each = shown.webhook
    failure: wire.WebhookFailure | None = None
    if each.failure is not None and each.failed_at is not None:
        failure = {"at": views.time(each.failed_at), "reason": each.failure, "tries": shown.tries}
    return {
        "id": each.id,
        "object": "webhook",
        "url": each.url,
        "types": list(each.types),
        "name": each.name,
        "enabled": each.disabled is None,
        "disabled_reason": each.disabled,
        "created_at": views.time(each.created_at),
        "position": shown.position,
        "recorded": each.since,
        "lag": shown.lag,
        "last_failure": failure,
        "next_try_at": views.time(_micros(shown.next_try_at)),
    }


def secret(webhook_id: str, value: str, *, old_until: float | None) -> wire.WebhookSecret:
    """A new secret; ``old_until`` is Unix time in seconds."""
    return {
        "id": webhook_id,
        "object": "webhook.secret",
        "secret": value,
        "old_until": views.time(_micros(old_until)),
    }


def tested(message_id: str, outcome: Outcome) -> wire.WebhookTest:
    """What came of a test."""
    return {
        "id": message_id,
        "object": "webhook.test",
        "delivered": outcome.taken,
        "status": outcome.status,
        "error": outcome.error,
        "body": outcome.excerpt,
        "seconds": round(outcome.seconds, 3),
    }


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1_000_000)
