"""All deliveries: a task for each webhook that is enabled, begun, ended and begun again as the log says."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.abc

from finetuned.board import Board
from finetuned.domain import facts
from finetuned.domain.registers import Webhook
from finetuned.patience import patiently
from finetuned.store import Log
from finetuned.webhooks.endpoint import Clock, Endpoint
from finetuned.webhooks.keys import WebhookKeys
from finetuned.webhooks.sender import Sender
from finetuned_events import LogError

log = logging.getLogger(__name__)

PAUSE_S: Final = 60.0  # after deliveries that broke off, before they go on
#: events after which another task may be called for
CONTROL: Final = frozenset(
    fact.type
    for fact in (
        facts.WebhookCreated,
        facts.WebhookDisabled,
        facts.WebhookEnabled,
        facts.WebhookReplayed,
        facts.WebhookDeleted,
    )
)


@dataclass(slots=True, eq=False)
class _Running:
    endpoint: Endpoint
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True, eq=False)
class Deliveries:
    """``jitter`` gives numbers from 0 to 1 that differ from daemon to daemon."""

    log: Log
    board: Board
    keys: WebhookKeys
    sender: Sender
    clock: Clock = field(default_factory=Clock)
    jitter: Callable[[], float] = field(default=random.random)
    _running: dict[str, _Running] = field(default_factory=dict)

    async def run(self) -> None:
        """Deliver until cancelled; what was delivered by then is recorded."""
        async with anyio.create_task_group() as tasks:
            await patiently("Webhooks", lambda: self._follow(tasks))

    def endpoint(self, webhook_id: str) -> Endpoint | None:
        """What is under way for a webhook; ``None`` if it is disabled, or nothing runs yet."""
        running = self._running.get(webhook_id)
        return None if running is None else running.endpoint

    async def _follow(self, tasks: anyio.abc.TaskGroup) -> None:
        head = self.log.head
        await self._match(tasks)
        async for _page in self.log.follow(after=head, types=CONTROL):
            await self._match(tasks)

    async def _match(self, tasks: anyio.abc.TaskGroup) -> None:
        """End what is not called for, begin what is."""
        webhooks = dict((await self.board.world()).webhooks)
        for webhook_id, running in list(self._running.items()):
            if not _is_of(running.endpoint, webhooks.get(webhook_id)):
                running.scope.cancel()
                await running.ended.wait()  # it may record something yet
                del self._running[webhook_id]
        for webhook in webhooks.values():
            if webhook.disabled is None and webhook.id not in self._running:
                self._begin(tasks, webhook)

    def _begin(self, tasks: anyio.abc.TaskGroup, webhook: Webhook) -> None:
        if 0 < webhook.since < self.log.sealed:
            log.warning(
                "The webhook %s goes on after %d: the events from %d on are in an archive and are not sent",
                webhook.id,
                self.log.sealed,
                webhook.since + 1,
            )
        running = _Running(Endpoint(webhook, self.log, self.keys, self.sender, self.clock, self.jitter))
        self._running[webhook.id] = running
        tasks.start_soon(_run, running)


async def _run(running: _Running) -> None:
    try:
        with running.scope:
            await keep_on(running.endpoint)
    finally:
        running.ended.set()


async def keep_on(endpoint: Endpoint) -> None:
    """Deliver until there is nothing more to; whatever one receiver answers, the daemon and the others go on."""
    while True:
        try:
            return await endpoint.run()
        except LogError:
            raise
        except Exception:
            log.exception("The deliveries to the webhook %s broke off; they go on", endpoint.webhook.id)
        await endpoint.clock.sleep(PAUSE_S)


def _is_of(endpoint: Endpoint, webhook: Webhook | None) -> bool:
    """Whether what is under way is what the log calls for."""
    return webhook is not None and webhook.disabled is None and webhook.turn == endpoint.webhook.turn
