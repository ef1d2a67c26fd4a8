"""The way in for changes of aliases: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

from dataclasses import dataclass

from finetuned.commands.appending import Appending, Decide
from finetuned.domain import alias_decisions
from finetuned.domain.idempotency import Once
from finetuned.domain.registers import Alias


@dataclass(slots=True)
class AliasCommands:
    """What can be done with aliases. Each method returns after its events are on disk."""

    appending: Appending

    async def promote(self, alias: str, model: str, *, actor: str, once: Once | None = None) -> Alias:
        """Have an alias stand for a model. Raises ``InvalidRequestError`` or ``ModelNotFoundError``."""
        return await self._changed(
            alias,
            lambda world: alias_decisions.promote(world, alias, model, actor=actor),
            actor=actor,
            once=once,
        )

    async def roll_back(self, alias: str, *, actor: str, once: Once | None = None) -> Alias:
        """Have an alias stand for the model before. Raises ``NotFoundError`` or ``Rejected``."""
        return await self._changed(
            alias, lambda world: alias_decisions.roll_back(world, alias, actor=actor), actor=actor, once=once
        )

    async def delete(self, alias: str, *, actor: str) -> None:
        """Free an alias; its model stays. Raises ``NotFoundError``."""
        await self.appending.log.execute(
            lambda world: alias_decisions.delete(world, alias, actor=actor), necessary=True
        )

    async def _changed(self, alias: str, decide: Decide, *, actor: str, once: Once | None) -> Alias:
        await self.appending.execute(decide, subject=f"alias/{alias}", actor=actor, once=once)
        world = await self.appending.board.world()
        if alias not in world.aliases:  # deleted since, by somebody else
            raise alias_decisions.unknown(world, alias)
        return world.aliases[alias]
