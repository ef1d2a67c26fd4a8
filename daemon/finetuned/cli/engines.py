"""``engines``: which there are, and an environment for one that cannot live in the daemon's. Needs no daemon."""

from __future__ import annotations

from pathlib import Path

import click

from finetuned import config as configuration
from finetuned import plugins as loading
from finetuned.cli import console, tables
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option
from finetuned.cli.shapes import Engine, InstalledEngine, Listing
from finetuned.domain.errors import InvalidRequestError
from finetuned.machine import devices
from finetuned.service import engine_environments
from finetuned.service.sources import find_source
from finetuned.spelling import nearest
from finetuned_sdk import EngineKind


@click.group(cls=Noun)
def engines() -> None:
    """List the engines that answer requests, and install one that needs an environment of its own."""


@engines.command
@json_option(shape=Listing[Engine])
def ls(*, as_json: bool) -> None:
    """List engines, and the interpreter that each runs in."""
    config = configuration.load()
    listed: list[Engine] = []
    for name, kind in sorted(_kinds().items()):
        python = config.engines[name].python if name in config.engines else None
        listed.append(
            {
                "name": name,
                "default": name == config.default_engine,
                "python": None if python is None else str(python),
                "own_environment": kind.environment is not None,
                "endpoints": list(kind.endpoints),
            }
        )
    if as_json:
        console.emit({"data": listed, "has_more": False})
        return
    shown = tables.table("NAME", "DEFAULT", "RUNS IN", "ANSWERS")
    for each in listed:
        place = each["python"] or (
            f"nothing yet: `finetune engines install {each['name']}`"
            if each["own_environment"]
            else "the daemon's environment"
        )
        shown.add_row(each["name"], "yes" if each["default"] else "", place, ", ".join(each["endpoints"]))
    console.show(shown, empty="No plugin declares an engine.")


@engines.command
@click.argument("name", metavar="NAME")
@click.option(
    "--path",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to make the environment. Default: engines/NAME in the state directory.",
)
@click.option(
    "--from", "source", help="A wheel, a checkout or a version of finetuned. Default: the running one."
)
@json_option(shape=InstalledEngine)
def install(*, name: str, path: Path | None, source: str | None, as_json: bool) -> None:
    """Make an environment with an engine in it, by pip; some GB, and some minutes. Done again, it is made up to date."""
    kinds = _kinds()
    if name not in kinds:
        raise InvalidRequestError(
            f"There is no engine {name!r}.{nearest(name, kinds)} `finetune engines ls` lists them.",
            param="NAME",
        )
    environment = kinds[name].environment
    if environment is None:
        raise InvalidRequestError(
            f"The engine {name} runs in the daemon's own environment; there is nothing to install.",
            param="NAME",
        )
    home = (path or configuration.load().state_dir / "engines" / name).expanduser().absolute()
    has_gpu = any(each.kind == "gpu" for each in devices.detect(cpu_slots=None, nvml=devices.load_nvml()))
    plan = engine_environments.plan(home, environment, find_source(source), has_gpu=has_gpu)
    for step in plan:
        console.note(step.text)
        step.run()
    python = home / "bin" / "python"
    if as_json:
        made: InstalledEngine = {"name": name, "python": str(python)}
        console.emit(made)
        return
    console.say(
        f"The engine {name} is in {home}. Put this into the daemon's configuration, and start it anew:"
    )
    console.say(f'\n[engines.{name}]\npython = "{python}"')


def _kinds() -> dict[str, EngineKind]:
    return loading.load()[0].engines
