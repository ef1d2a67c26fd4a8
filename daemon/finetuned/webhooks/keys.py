"""The secrets of webhooks: a file each, for the daemon's user only, apart from those that jobs may name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

import anyio.to_thread
import orjson

from finetuned.domain.errors import Rejected
from finetuned.secrets.store import SecretMissingError, SecretStore
from finetuned.webhooks import signing

KEPT: Final = 5  # secrets of one webhook at most: a message has a signature of each


@dataclass(frozen=True, slots=True)
class Key:
    """A secret that signs; ``until`` is Unix time in seconds, ``None`` for as long as there is no other."""

    secret: str
    until: float | None = None


@dataclass(slots=True)
class WebhookKeys:
    """The secrets in ``store``, which holds nothing else and is changed here only. ``now`` is Unix time in seconds."""

    store: SecretStore
    now: Callable[[], float]
    _known: dict[str, list[Key]] = field(default_factory=dict)  # what was read of it

    def sweep(self, known: Collection[str]) -> None:
        """Remove what a daemon that was killed has left: values half-written, and those of no webhook. Blocks."""
        self.store.sweep()
        for each in self.store.names():
            if each.name not in known:
                self.store.delete(each.name)

    async def create(self, webhook_id: str) -> str:
        """A first secret, on disk when this returns."""
        secret = signing.new_secret()
        await self.write(webhook_id, [Key(secret)])
        return secret

    async def rotated(self, webhook_id: str, *, keep_s: int) -> list[Key]:
        """Another secret, and those before, which sign too for ``keep_s`` seconds; nothing changes before :meth:`write`.

        Raises ``SecretUnsafeError``.
        """
        try:
            before = await self.read(webhook_id)
        except Rejected:  # lost, by a restored backup for instance: this mends it
            before = []
        secret, end = signing.new_secret(), self.now() + keep_s
        signing_still = [key for key in before if key.until is None or self.now() < key.until]
        older = [Key(key.secret, min(key.until or end, end)) for key in signing_still] if keep_s else []
        return [Key(secret), *older]

    async def read(self, webhook_id: str) -> list[Key]:
        """The secrets, the newest first. Raises ``Rejected`` or ``SecretUnsafeError``."""
        if webhook_id in self._known:
            return self._known[webhook_id]
        try:
            text = await anyio.to_thread.run_sync(self.store.read, webhook_id)
        except SecretMissingError:
            raise Rejected(
                "webhook_secret_missing",
                f"The secret of the webhook {webhook_id} is not in {self.store.directory}; make another with"
                f" `finetune webhooks rotate {webhook_id}`, and give it to the receiver.",
            ) from None
        found = _keys(text)
        if not found:
            raise Rejected(
                "webhook_secret_missing",
                f"The file of the webhook {webhook_id} in {self.store.directory} holds no secret; make another with"
                f" `finetune webhooks rotate {webhook_id}`, and give it to the receiver.",
            )
        return self._known.setdefault(webhook_id, found)

    def good(self, keys: Collection[Key]) -> list[str]:
        """Those that sign now."""
        now = self.now()
        return [key.secret for key in keys if key.until is None or now < key.until]

    async def delete(self, webhook_id: str) -> None:
        """Remove the file; nothing if there is none."""
        self._known.pop(webhook_id, None)
        try:
            await anyio.to_thread.run_sync(self.store.delete, webhook_id)
        except SecretMissingError:
            return

    async def write(self, webhook_id: str, keys: list[Key]) -> None:
        """Sign with these from now on; they are on disk when this returns."""
        document: list[Any] = [{"secret": key.secret, "until": key.until} for key in keys[:KEPT]]
        await anyio.to_thread.run_sync(self.store.put, webhook_id, orjson.dumps(document).decode())
        self._known.pop(webhook_id, None)


def _keys(text: str) -> list[Key]:
    """The secrets that a file holds; none if it is not what was written."""
    try:
        found = [Key(**each) for each in orjson.loads(text)]
        for key in found:
            signing.key_of(key.secret)
    except (ValueError, TypeError, AttributeError):
        return []
    return found
