"""Secrets set and removed. Values go to the store's files; the log learns names only."""

from __future__ import annotations

from dataclasses import dataclass

import anyio.to_thread

from finetuned.domain import decisions, facts
from finetuned.secrets.store import SecretName, SecretStore
from finetuned.store import Log


@dataclass(frozen=True, slots=True)
class SecretCommands:
    """What can be asked about secrets; never a value."""

    log: Log
    store: SecretStore

    async def names(self) -> list[SecretName]:
        """The names of all secrets, in order."""
        return await anyio.to_thread.run_sync(self.store.names)

    async def put(self, name: str, value: str, *, actor: str) -> SecretName:
        """Store a value. Raises ``InvalidRequestError``, ``SecretUnsafeError`` or ``Rejected``."""
        await anyio.to_thread.run_sync(self.store.put, name, value)
        await self.log.execute(lambda _world: decisions.set_secret(facts.SecretSet(name=name), actor=actor))
        return SecretName(name, writable=True)

    async def delete(self, name: str, *, actor: str) -> None:
        """Remove a value. Raises ``SecretMissingError`` or ``Rejected``."""
        await anyio.to_thread.run_sync(self.store.delete, name)
        await self.log.execute(
            lambda _world: decisions.delete_secret(facts.SecretDeleted(name=name), actor=actor)
        )
