"""The way in for changes of templates: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

from dataclasses import dataclass

import anyio.to_thread

from finetuned import templates
from finetuned.access.path_policy import NOWHERE, PathPolicy
from finetuned.commands.appending import Appending
from finetuned.domain import template_decisions
from finetuned.domain.idempotency import Once
from finetuned.domain.registers import Template
from finetuned.job_request import JobRequest
from finetuned_sdk import Registry


@dataclass(slots=True)
class TemplateCommands:
    """What can be done with templates. Each method returns after its events are on disk."""

    appending: Appending
    registry: Registry
    paths: PathPolicy = NOWHERE

    async def save(
        self,
        name: str,
        request: JobRequest,
        *,
        description: str | None,
        actor: str,
        may_name_paths: bool = False,
        new: bool = False,
        once: Once | None = None,
    ) -> Template:
        """Keep a job request as the newest version of a template; ``new`` refuses a name that is taken.

        Paths in it are checked as those of a job: whoever makes a job of it later has rights of their own to lend.
        Raises ``InvalidRequestError``, ``PathNotAllowedError`` or ``Rejected``.
        """
        templates.check_name(name)
        kept = templates.check(request, self.registry)
        paths = self.paths.of(may_name_paths=may_name_paths)
        models = frozenset((await self.appending.board.world()).models)
        await anyio.to_thread.run_sync(templates.check_paths, request, self.registry, paths, models)

        await self.appending.execute(
            lambda world: template_decisions.save(world, name, kept, description, new=new, actor=actor),
            subject=f"template/{name}",
            actor=actor,
            once=once,
        )
        world = await self.appending.board.world()
        if name not in world.templates:  # deleted since, by somebody else
            raise template_decisions.unknown(world, name)
        return world.templates[name]

    async def delete(self, name: str, *, actor: str) -> None:
        """Free a template's name. Jobs that were made from it stay as they are. Raises ``NotFoundError``."""
        await self.appending.log.execute(lambda world: template_decisions.delete(world, name, actor=actor))
