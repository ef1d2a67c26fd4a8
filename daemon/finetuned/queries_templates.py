"""The way in for looks at templates: part of :mod:`finetuned.queries`."""

from __future__ import annotations

from dataclasses import dataclass

from finetuned.board import Board
from finetuned.domain import facts, template_decisions
from finetuned.domain.errors import NotFoundError
from finetuned.domain.registers import Template
from finetuned.store import Log

MOST_VERSIONS = 1000  # of a template that are listed


@dataclass(slots=True)
class TemplateQueries:
    """What can be looked at of templates. Older versions are read from the log."""

    log: Log
    board: Board

    async def templates(self) -> list[Template]:
        """The newest version of each template, by name."""
        world = await self.board.world()
        return [world.templates[name] for name in sorted(world.templates)]

    async def template(self, name: str, version: int | None = None) -> Template:
        """One version of a template, by default the newest. Raises ``NotFoundError``."""
        world = await self.board.world()
        newest = world.templates.get(name)
        if newest is None:
            raise template_decisions.unknown(world, name)
        if version in {None, newest.version}:
            return newest
        for each in await self.versions(name):
            if each.version == version:
                return each
        raise NotFoundError(
            f"The template {name!r} has no version {version}; its newest is {newest.version}.",
            param="version",
        )

    async def versions(self, name: str) -> list[Template]:
        """The versions of a template since its name was last free, the newest first. Raises ``NotFoundError``."""
        await self.template(name)
        events = await self.log.read(stream=f"template/{name}", descending=True, limit=MOST_VERSIONS)
        found: list[Template] = []
        for event in events:
            if event.type != facts.TemplateSaved.type:
                break  # it was deleted there
            found.append(Template(**dict(event.data), saved_at=event.at, saved_by=event.actor))
        return found
