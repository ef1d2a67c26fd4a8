"""Calls about secrets: set, named, removed, never read."""

from __future__ import annotations

from finetuned.client.calls import Calls, part
from finetuned.wire import Secret


class SecretCalls(Calls):
    """Secrets that jobs may name as ``secret:<name>``."""

    async def secrets(self) -> list[Secret]:
        """The names of all secrets."""
        return await self._listed("/v1/secrets")

    async def set_secret(self, name: str, value: str) -> Secret:
        """Store a secret, or replace it."""
        stored: Secret = await self._put(f"/v1/secrets/{part(name)}", {"value": value})
        return stored

    async def delete_secret(self, name: str) -> None:
        """Remove a secret."""
        await self._delete(f"/v1/secrets/{part(name)}")
