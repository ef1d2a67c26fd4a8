"""Calls about models."""

from __future__ import annotations

from finetuned.client.calls import Calls, part
from finetuned.wire import Lineage, Model


class ModelCalls(Calls):
    """What can be trained and what was made."""

    async def models(self) -> list[Model]:
        """The registered models."""
        return await self._listed("/v1/models")

    async def model(self, name: str) -> Model:
        """One registered model."""
        model: Model = await self._get(f"/v1/models/{part(name)}")
        return model

    async def lineage(self, name: str) -> Lineage:
        """Where a model comes from, and what was made from it."""
        found: Lineage = await self._get(f"/v1/models/{part(name)}/lineage")
        return found

    async def delete_model(self, name: str) -> None:
        """Free a model's name. Its files stay."""
        await self._delete(f"/v1/models/{part(name)}")
