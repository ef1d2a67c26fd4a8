"""Decisions about datasets; pure, as those of :mod:`finetuned.domain.decisions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from finetuned.domain import facts, files
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.world import World
from finetuned_events import NewEvent

Json = Any
Events = list[NewEvent]


def register(world: World, fact: facts.DatasetRegistered, *, actor: str) -> Events:
    """Make a version the newest of its name. What is so already changes nothing.

    Content that was uploaded is kept when the same comes from a path: that file may change.
    """
    dataset = world.datasets.get(fact.name)
    known = (
        next((each for each in dataset.versions if each.version == fact.version), None) if dataset else None
    )
    if (
        known is not None
        and known.format == fact.format
        and known.source == "upload"
        and fact.source == "path"
    ):
        fact = replace(fact, path=known.path, source=known.source, rows=known.rows, identity=None)
    if (
        dataset is not None
        and known is dataset.newest
        and (known.path, known.format, known.identity) == (fact.path, fact.format, fact.identity)
    ):
        return []
    return [_event(fact.name, fact, actor)]


def delete(world: World, name: str, versions: list[str] | None, *, actor: str) -> Events:
    """Free a dataset's name (``versions``: only these). Live jobs keep the files that they were given."""
    dataset = world.datasets.get(name)
    known = [each.version for each in dataset.versions] if dataset is not None else []
    gone = known if versions is None else [each for each in known if each in versions]
    if not gone:
        raise NotFoundError(
            f"There is no dataset {name!r} with such a version; `finetune datasets` lists them.", param="name"
        )
    return [_event(name, facts.DatasetDeleted(name=name, versions=gone), actor)]


def require(world: World, used: Mapping[str, Mapping[str, Json]]) -> None:
    """Reject a job whose datasets or files were deleted since its request was read: their content may be gone."""
    for param, each in used.items():
        if files.is_used(world, each):
            continue
        dataset = world.datasets.get(each["name"])
        if dataset is None or all(version.path != each["path"] for version in dataset.versions):
            if files.is_id(each["name"]):
                raise Rejected(
                    "file_gone",
                    f"The file {each['name']} has just been deleted or has expired; upload it again or name another.",
                    param=f"params.{param}",
                )
            raise Rejected(
                "dataset_gone",
                f"The dataset {each['name']}@{each['version'][:12]} has just been deleted; upload it again or name"
                " another.",
                param=f"params.{param}",
            )


def paths_in_use(world: World) -> Iterator[str]:
    """The files that a name or a live job still needs."""
    for dataset in world.datasets.values():
        yield from (version.path for version in dataset.versions)
    yield from (each.path for each in world.files.values())
    for job in world.live_jobs():
        yield from (each["path"] for each in job.datasets.values())


def _event(name: str, fact: facts.Fact, actor: str) -> NewEvent:
    schema = facts.SCHEMAS[fact.type]
    return NewEvent(stream=f"dataset/{name}", type=fact.type, data=fact.to_data(), actor=actor, schema=schema)
