"""The way in for looks at templates: part of :mod:`finetuned.queries.door`."""

from __future__ import annotations

from dataclasses import dataclass

from finetuned.board import Board
from finetuned.domain import facts, template_decisions
from finetuned.domain.errors import ArchivedError, NotFoundError
from finetuned.domain.registers import Template
from finetuned.store import Log

EVENTS = 500  # of a template that are read at once


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
        found, _ = await self.versions(name, after=None if version is None else version + 1, limit=1)
        if found and found[0].version == version:
            return found[0]
        if version is not None and version < newest.version and await self.log.archived(f"template/{name}"):
            raise ArchivedError(
                f"Version {version} of the template {name!r} is in an archive of the log; name a later one.",
                param="version",
            )
        raise NotFoundError(
            f"The template {name!r} has no version {version}; its newest is {newest.version}.",
            param="version",
        )

    async def versions(
        self, name: str, *, after: int | None = None, limit: int
    ) -> tuple[list[Template], bool]:
        """A page of a template's versions, the newest first, and whether there are more; those before ``after``.

        They are those since its name was last free. Raises ``NotFoundError``.
        """
        await self.template(name)
        found: list[Template] = []
        before: int | None = None
        while True:
            events = await self.log.read(
                stream=f"template/{name}", descending=True, before=before, limit=EVENTS
            )
            for event in events:
                if event.type != facts.TemplateSaved.type:
                    return found, False  # it was deleted there
                if after is not None and event.data["version"] >= after:
                    continue
                if len(found) == limit:
                    return found, True
                found.append(Template(**dict(event.data), saved_at=event.at, saved_by=event.actor))
            if len(events) < EVENTS:
                return found, False
            before = events[-1].seq
