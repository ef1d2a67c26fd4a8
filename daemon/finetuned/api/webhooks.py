"""Webhooks: where events are sent to. For administrators: an address is often a secret itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from finetuned import wire
from finetuned.api.call import Call
from finetuned.api.lists import page_of
from finetuned.api.parameters import LARGEST_SEQ, PageQuery
from finetuned.commands.webhooks import KEPT_S, LONGEST_KEPT_S
from finetuned.domain.errors import InvalidRequestError
from finetuned.json_numbers import Integer
from finetuned.views import webhooks as views_webhooks

MOST_TYPES = 200

Position = Annotated[Integer, Field(ge=0, le=LARGEST_SEQ)]


class WebhookRequest(BaseModel):
    """The body of ``POST /v1/webhooks``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    url: str = Field(description="where to send to; https, unless `outbound_allow` names its host")
    types: list[str] = Field(
        max_length=MOST_TYPES,
        description="what to send: types of events (`job.succeeded`), families (`job.*`), `*`, or OpenAI's"
        " (`fine_tuning.job.succeeded`, `batch.completed`)",
    )
    name: str | None = Field(default=None, max_length=200, description="what it is for")


class EnableRequest(BaseModel):
    """The body of ``POST /v1/webhooks/{webhook_id}/enable``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    after: Position | None = Field(
        default=None, description="send what follows this position. Default: what was not sent yet"
    )


class RotateRequest(BaseModel):
    """The body of ``POST /v1/webhooks/{webhook_id}/rotate``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    keep_s: Integer = Field(
        default=KEPT_S, ge=0, le=LONGEST_KEPT_S, description="seconds that the old secret signs too"
    )


class ReplayRequest(BaseModel):
    """The body of ``POST /v1/webhooks/{webhook_id}/replay``: one of its fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    after: Position | None = Field(default=None, description="send again what follows this position")
    since: str | None = Field(
        default=None, max_length=40, description="send again what happened after this time (RFC 3339)"
    )


async def listed(call: Call, query: PageQuery) -> wire.Page[wire.Webhook]:
    """All webhooks, the oldest first; never a secret."""
    found = [views_webhooks.webhook(each) for each in await call.queries.webhooks.webhooks()]
    return page_of(found, lambda each: each["id"], after=query.after, limit=query.limit)


async def show(call: Call, *, webhook_id: str) -> wire.Webhook:
    """Where it stands: how far deliveries have come, what failed last, when it is tried again."""
    return views_webhooks.webhook(await call.queries.webhooks.webhook(webhook_id))


async def create(call: Call, body: WebhookRequest) -> wire.NewWebhook:
    """Send events from now on. The secret is in this answer and nowhere else."""
    webhook, secret = await call.commands.webhooks.create(
        body.url, body.types, name=body.name, actor=call.caller.actor, once=call.once
    )
    return {**await show(call, webhook_id=webhook.id), "secret": secret}


async def delete(call: Call, *, webhook_id: str) -> wire.Deleted:
    """Send nothing any more, and forget the secret."""
    await call.commands.webhooks.delete(webhook_id, actor=call.caller.actor)
    return {"id": webhook_id, "object": "webhook", "deleted": True}


async def enable(call: Call, body: EnableRequest, *, webhook_id: str) -> wire.Webhook:
    """Send again after it was disabled."""
    await call.commands.webhooks.enable(webhook_id, after=body.after, actor=call.caller.actor, once=call.once)
    return await show(call, webhook_id=webhook_id)


async def rotate(call: Call, body: RotateRequest, *, webhook_id: str) -> wire.WebhookSecret:
    """Make another secret. For `keep_s` seconds messages are signed with the old one, too."""
    secret = await call.commands.webhooks.rotate(
        webhook_id, keep_s=body.keep_s, actor=call.caller.actor, once=call.once
    )
    old_until = call.queries.now() / 1e6 + body.keep_s if body.keep_s else None
    return views_webhooks.secret(webhook_id, secret, old_until=old_until)


async def test(call: Call, *, webhook_id: str) -> wire.WebhookTest:
    """Send a `webhook.test` now and tell what came of it. It is tried once, and nothing is recorded."""
    return views_webhooks.tested(*await call.commands.webhooks.test(webhook_id))


async def replay(call: Call, body: ReplayRequest, *, webhook_id: str) -> wire.Webhook:
    """Send again what follows a position or a time, with the ids that it had."""
    if (body.after is None) == (body.since is None):
        raise InvalidRequestError(
            "Name one of after (a position) and since (a time).", param="after", code="invalid_params"
        )
    after = body.after if body.since is None else await call.queries.position(body.since, param="since")
    assert after is not None
    await call.commands.webhooks.replay(webhook_id, after=after, actor=call.caller.actor, once=call.once)
    return await show(call, webhook_id=webhook_id)
