"""Calls about webhooks: where the daemon sends events to."""

from __future__ import annotations

from collections.abc import Sequence

from finetuned.client.calls import Calls, given, part
from finetuned.wire import NewWebhook, Webhook, WebhookSecret, WebhookTest


class WebhookCalls(Calls):
    """Make, look, mend, remove."""

    async def webhooks(self) -> list[Webhook]:
        """All webhooks, without their secrets."""
        return await self._listed("/v1/webhooks")

    async def webhook(self, webhook_id: str) -> Webhook:
        """A webhook, and how far its deliveries have come."""
        webhook: Webhook = await self._get(_path(webhook_id))
        return webhook

    async def create_webhook(self, url: str, types: Sequence[str], *, name: str | None = None) -> NewWebhook:
        """Have events sent to ``url`` from now on; ``secret`` in the answer is shown this once."""
        # Without a key: the secret is not in the log, so a repetition could not be answered with it.
        webhook: NewWebhook = await self._transport.request(
            "POST", "/v1/webhooks", body=given(url=url, types=list(types), name=name)
        )
        return webhook

    async def enable_webhook(self, webhook_id: str, *, after: int | None = None) -> Webhook:
        """Send again after it was disabled: what was not sent yet, or what follows ``after``."""
        webhook: Webhook = await self._post(f"{_path(webhook_id)}/enable", given(after=after))
        return webhook

    async def rotate_webhook(self, webhook_id: str, *, keep_s: int | None = None) -> WebhookSecret:
        """Another secret, shown this once; the old one signs too for ``keep_s`` seconds."""
        secret: WebhookSecret = await self._transport.request(
            "POST", f"{_path(webhook_id)}/rotate", body=given(keep_s=keep_s)
        )
        return secret

    async def test_webhook(self, webhook_id: str) -> WebhookTest:
        """Send a test now; what came of it."""
        tested: WebhookTest = await self._transport.request("POST", f"{_path(webhook_id)}/test", body={})
        return tested

    async def replay_webhook(
        self, webhook_id: str, *, after: int | None = None, since: str | None = None
    ) -> Webhook:
        """Send again what follows the position ``after``, or the time ``since`` (RFC 3339)."""
        webhook: Webhook = await self._post(f"{_path(webhook_id)}/replay", given(after=after, since=since))
        return webhook

    async def delete_webhook(self, webhook_id: str) -> None:
        """Send nothing any more, and forget the secret."""
        await self._delete(_path(webhook_id))


def _path(webhook_id: str) -> str:
    return f"/v1/webhooks/{part(webhook_id)}"
