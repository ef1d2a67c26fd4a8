"""Calls about models."""

from __future__ import annotations

from finetuned.client.calls import Calls, part
from finetuned.wire import Alias, Lineage, Model


class ModelCalls(Calls):
    """What can be trained and what was made."""

    async def models(self) -> list[Model]:
        """The registered models."""
        return await self._listed("/v1/models")

    async def model(self, name: str) -> Model:
        """One registered model."""
        model: Model = await self._get(f"/v1/models/{part(name)}")
        return model

    async def aliases(self) -> list[Alias]:
        """The aliases of models."""
        return await self._listed("/v1/aliases")

    async def alias(self, name: str) -> Alias:
        """One alias, with the models that it stood for before."""
        alias: Alias = await self._get(_alias(name))
        return alias

    async def promote(self, model: str, alias: str) -> Alias:
        """Have an alias, such as ``support-bot@production``, stand for a model."""
        promoted: Alias = await self._put(_alias(alias), {"model": model})
        return promoted

    async def roll_back(self, alias: str) -> Alias:
        """Have an alias stand for the model before."""
        back: Alias = await self._post(f"{_alias(alias)}/rollback")
        return back

    async def delete_alias(self, alias: str) -> None:
        """Free an alias. Its model stays."""
        await self._delete(_alias(alias))

    async def lineage(self, name: str) -> Lineage:
        """Where a model comes from, and what was made from it."""
        found: Lineage = await self._get(f"/v1/models/{part(name)}/lineage")
        return found

    async def delete_model(self, name: str) -> None:
        """Free a model's name. Its files stay."""
        await self._delete(f"/v1/models/{part(name)}")


def _alias(name: str) -> str:
    return f"/v1/aliases/{part(name)}"
