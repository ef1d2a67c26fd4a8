"""The way in for changes of webhooks: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from finetuned.access.outbound import OutboundGuard, OutboundRefusedError
from finetuned.commands.appending import Appending
from finetuned.domain import facts, subscriptions, webhook_decisions
from finetuned.domain.errors import ArchivedError, InvalidRequestError, Rejected
from finetuned.domain.idempotency import Once
from finetuned.domain.registers import Webhook
from finetuned.secrets.scan import refuse_secrets
from finetuned.webhooks import payload
from finetuned.webhooks.keys import WebhookKeys
from finetuned.webhooks.sender import Outcome, Sender

LOOKUP_S: Final = 10.0  # that resolving a name may take
KEPT_S: Final = 24 * 3600  # seconds that the secret before signs too, unless somebody says otherwise
LONGEST_KEPT_S: Final = 7 * 24 * 3600


@dataclass(slots=True)
class WebhookCommands:
    """What can be done with webhooks. Each method returns after its events are on disk.

    ``sender`` calls receivers, through the guard that says which addresses may be called.
    """

    appending: Appending
    keys: WebhookKeys
    sender: Sender
    new_id: Callable[[str], str]
    _turns: anyio.Lock = field(default_factory=anyio.Lock)  # of those who change a secret

    async def create(
        self,
        url: str,
        types: Sequence[str],
        *,
        name: str | None,
        actor: str,
        once: Once | None = None,
    ) -> tuple[Webhook, str]:
        """Send events of these types to ``url`` from now on; the webhook and its secret, which is shown this once.

        Raises ``InvalidRequestError``, ``OutboundRefusedError`` or ``Rejected``.
        """
        await self._refuse_repetition(once)
        refuse_secrets(name, where="name")
        wanted = subscriptions.check(types)
        await _require_callable(self.sender.guard, url)
        webhook_id = self.new_id("webhook-")
        fact = facts.WebhookCreated(
            id=webhook_id, url=url, types=wanted, since=self.appending.log.head, name=name
        )
        async with self._turns:
            secret = await self.keys.create(
                webhook_id
            )  # before its event: who can be told of it can be signed for
            try:
                appended = await self.appending.execute(
                    lambda world: webhook_decisions.create(world, fact, actor=actor),
                    subject=f"webhook/{webhook_id}",
                    actor=actor,
                    once=once,
                )
            except Rejected:
                await self.keys.delete(webhook_id)
                raise
        if appended.subject != f"webhook/{webhook_id}":
            await self.keys.delete(webhook_id)
            raise _shown_once(appended.subject)
        return await self._webhook(webhook_id), secret

    async def enable(
        self, webhook_id: str, *, after: int | None, actor: str, once: Once | None = None
    ) -> Webhook:
        """Send again, from where it stopped or from beyond the position ``after``.

        Raises ``NotFoundError``, and ``Rejected`` if it is enabled and ``after`` is named.
        """
        if after is not None:
            self._require_position(after)
        await self.appending.execute(
            lambda world: webhook_decisions.enable(world, webhook_id, since=after, actor=actor),
            subject=f"webhook/{webhook_id}",
            actor=actor,
            once=once,
        )
        return await self._webhook(webhook_id)

    async def replay(self, webhook_id: str, *, after: int, actor: str, once: Once | None = None) -> Webhook:
        """Go on from beyond the position ``after``: what was sent is sent again, with the same ids.

        Raises ``NotFoundError``, ``Rejected``, ``ArchivedError`` or ``InvalidRequestError``.
        """
        self._require_position(after)
        await self.appending.execute(
            lambda world: webhook_decisions.replay(world, webhook_id, since=after, actor=actor),
            subject=f"webhook/{webhook_id}",
            actor=actor,
            once=once,
        )
        return await self._webhook(webhook_id)

    async def rotate(
        self, webhook_id: str, *, keep_s: int = KEPT_S, actor: str, once: Once | None = None
    ) -> str:
        """Another secret, shown this once; the one before signs too for ``keep_s`` seconds.

        A daemon that is killed meanwhile signs as before: no secret counts that nobody was told of. Raises
        ``NotFoundError``.
        """
        async with self._turns:
            await self._refuse_repetition(once)
            await self._webhook(webhook_id)
            rotated = await self.keys.rotated(webhook_id, keep_s=keep_s)
            await self.appending.execute(
                lambda world: webhook_decisions.rotate(world, webhook_id, keep_s=keep_s, actor=actor),
                subject=f"webhook/{webhook_id}",
                actor=actor,
                once=once,
            )
            await self.keys.write(webhook_id, rotated)
        return rotated[0].secret

    async def test(self, webhook_id: str) -> tuple[str, Outcome]:
        """Send a ``webhook.test`` now, disabled or not, once; its id and what came of it. Nothing is recorded."""
        webhook = await self._webhook(webhook_id)
        message = payload.test(secrets.token_hex(16), self.appending.now())
        keys = self.keys.good(await self.keys.read(webhook_id))
        async with self.sender.line(webhook.url) as line:
            return message.id, await line.send(message, keys, excerpt=True)

    async def delete(self, webhook_id: str, *, actor: str) -> None:
        """End it and remove its secret. Raises ``NotFoundError``."""
        async with self._turns:
            await self.appending.log.execute(
                lambda world: webhook_decisions.delete(world, webhook_id, actor=actor), necessary=True
            )
            await self.keys.delete(webhook_id)

    async def _webhook(self, webhook_id: str) -> Webhook:
        return webhook_decisions.of(await self.appending.board.world(), webhook_id)

    async def _refuse_repetition(self, once: Once | None) -> None:
        if done := await self.appending.earlier(once):
            raise _shown_once(done)

    def _require_position(self, after: int) -> None:
        log = self.appending.log
        if after > log.head:
            raise InvalidRequestError(
                f"after: {after} is beyond the newest event, {log.head}; name a position that has been.",
                param="after",
            )
        if after < log.sealed:
            raise ArchivedError(
                f"The events that follow {after} are in an archive, up to {log.sealed}; go on with after={log.sealed}.",
                param="after",
            )


async def _require_callable(guard: OutboundGuard, url: str) -> None:
    """Refuse an address that the daemon may not call, or that there is not. It is checked again at each connection."""
    checked = guard.check(url, param="url")
    host = checked.host or ""
    with anyio.move_on_after(LOOKUP_S) as looking:
        try:
            await guard.addresses(host)
        except OutboundRefusedError as refused:
            raise OutboundRefusedError(refused.message, param="url") from None
        except OSError:
            raise _unresolved(host) from None
    if looking.cancelled_caught:
        raise _unresolved(host)


def _unresolved(host: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{host!r} has no address that could be found; correct the name, or try again if it is new.",
        param="url",
        code="host_not_found",
    )


def _shown_once(subject: str) -> Rejected:
    made = subject.removeprefix("webhook/")
    return Rejected(
        "secret_shown_once",
        f"This request was carried out before for the webhook {made}, and the secret was shown then only; make another"
        f" with `finetune webhooks rotate {made}` and a new key.",
    )
