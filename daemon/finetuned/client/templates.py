"""Calls about templates: job requests that are kept under a name."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from finetuned.client.calls import PAGE, Calls, given, part
from finetuned.wire import Page, Template

Json = Any


class TemplateCalls(Calls):
    """Keep, look, remove."""

    async def templates(self, *, after: str | None = None, limit: int = 50) -> Page[Template]:
        """A page of templates, by name."""
        page: Page[Template] = await self._get("/v1/templates", after=after, limit=limit)
        return page

    async def all_templates(self) -> AsyncGenerator[Template, None]:
        """Every template, by name."""
        after: str | None = None
        while True:
            page = await self.templates(after=after, limit=PAGE)
            for template in page["data"]:
                yield template
            if not page["has_more"] or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def template(self, name: str, *, version: int | None = None) -> Template:
        """A template: its newest version, or an earlier one."""
        template: Template = await self._get(_path(name), version=version)
        return template

    async def template_versions(self, name: str) -> list[Template]:
        """A template's versions, the newest first."""
        return await self._listed(f"{_path(name)}/versions")

    async def create_template(
        self, name: str, request: Mapping[str, Json], *, description: str | None = None
    ) -> Template:
        """Keep a job request under a name that is free."""
        template: Template = await self._post(
            "/v1/templates", given(name=name, request=request, description=description)
        )
        return template

    async def save_template(
        self, name: str, request: Mapping[str, Json], *, description: str | None = None
    ) -> Template:
        """Keep a job request as the newest version of a template."""
        template: Template = await self._put(_path(name), given(request=request, description=description))
        return template

    async def delete_template(self, name: str) -> None:
        """Free a template's name."""
        await self._delete(_path(name))


def _path(name: str) -> str:
    return f"/v1/templates/{part(name)}"
