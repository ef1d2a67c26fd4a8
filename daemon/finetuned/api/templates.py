"""Templates: job requests that are kept under a name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from finetuned import wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.api.parameters import LARGEST_PAGE, Limit, Name, Query, Whole
from finetuned.job_request import JobRequest
from finetuned.views import templates as views_templates

LARGEST_VERSION = 999_999_999


class TemplatesQuery(Query):
    """Which templates."""

    after: str | None = Field(default=None, description="the last id of the page before")
    limit: Limit = 50


class TemplateQuery(Query):
    """Which version."""

    version: Whole | None = Field(
        default=None, ge=1, le=LARGEST_VERSION, description="an earlier version; default: the newest"
    )


class VersionsQuery(Query):
    """Which versions."""

    after: Whole | None = Field(
        default=None, ge=1, le=LARGEST_VERSION, description="the last version of the page before"
    )
    limit: Limit = LARGEST_PAGE


class TemplateRequest(BaseModel):
    """The body of ``PUT /v1/templates/{name}``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    request: JobRequest = Field(
        description="a job request as `POST /v1/jobs` takes it; params may be left for later"
    )
    description: str | None = Field(default=None, max_length=1000, description="what it is for")


class NewTemplateRequest(TemplateRequest):
    """The body of ``POST /v1/templates``."""

    name: Name = Field(description="its name: up to 96 letters, digits, dots, dashes and underscores")


async def listed(call: Call, query: TemplatesQuery) -> wire.Page[wire.Template]:
    """The newest version of each template, by name."""
    found = [
        each
        for each in await call.queries.templates.templates()
        if query.after is None or each.name > query.after
    ]
    page = [views_templates.template(each) for each in found[: query.limit]]
    return listing(page, has_more=len(found) > len(page))


async def show(call: Call, query: TemplateQuery, *, name: Name) -> wire.Template:
    """One version of a template."""
    return views_templates.template(await call.queries.templates.template(name, query.version))


async def versions(call: Call, query: VersionsQuery, *, name: Name) -> wire.Page[wire.Template]:
    """A template's versions, the newest first."""
    found, has_more = await call.queries.templates.versions(name, after=query.after, limit=query.limit)
    return listing([views_templates.template(each) for each in found], has_more=has_more, key="version")


async def create(call: Call, body: NewTemplateRequest) -> wire.Template:
    """Keep a job request under a new name."""
    saved = await call.commands.templates.save(
        body.name,
        body.request,
        description=body.description,
        actor=call.caller.actor,
        may_name_paths=call.may_name_paths,
        new=True,
        once=call.once,
    )
    return views_templates.template(saved)


async def save(call: Call, body: TemplateRequest, *, name: Name) -> wire.Template:
    """Keep a job request as the newest version of a template."""
    saved = await call.commands.templates.save(
        name,
        body.request,
        description=body.description,
        actor=call.caller.actor,
        may_name_paths=call.may_name_paths,
    )
    return views_templates.template(saved)


async def delete(call: Call, *, name: Name) -> wire.Deleted:
    """Free a template's name."""
    await call.commands.templates.delete(name, actor=call.caller.actor)
    return {"id": name, "object": "template", "deleted": True}
