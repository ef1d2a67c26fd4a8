"""The way in for looks at webhooks: part of :mod:`finetuned.queries.door`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from finetuned.board import Board
from finetuned.domain import webhook_decisions
from finetuned.domain.registers import Webhook
from finetuned.store import Log


class UnderWay(Protocol):
    """How far the deliveries to one webhook have come, beyond what the log says."""

    webhook: Webhook  # as it was when they began
    position: int
    tries: int
    next_try_at: float | None


@dataclass(frozen=True, slots=True)
class ShownWebhook:
    """A webhook as it stands: ``lag`` is how many events are left to look at, ``next_try_at`` Unix time in seconds."""

    webhook: Webhook
    position: int
    lag: int
    tries: int
    next_try_at: float | None


@dataclass(slots=True)
class WebhookQueries:
    """What can be looked at of webhooks. ``under_way`` gives what is not in the log, ``None`` where nothing is."""

    log: Log
    board: Board
    under_way: Callable[[str], UnderWay | None]

    async def webhooks(self) -> list[ShownWebhook]:
        """All, the oldest first."""
        world = await self.board.world()
        return [
            self._shown(each) for each in sorted(world.webhooks.values(), key=lambda each: each.created_at)
        ]

    async def webhook(self, webhook_id: str) -> ShownWebhook:
        """One. Raises ``NotFoundError``."""
        return self._shown(webhook_decisions.of(await self.board.world(), webhook_id))

    def _shown(self, webhook: Webhook) -> ShownWebhook:
        live = self.under_way(webhook.id)
        if live is None or webhook.disabled is not None or live.webhook.turn != webhook.turn:
            position, tries, next_try_at = webhook.since, webhook.tries, None
        else:
            position, tries, next_try_at = live.position, live.tries, live.next_try_at
        lag = max(0, self.log.head - position)
        return ShownWebhook(webhook, position, lag, tries, next_try_at)
