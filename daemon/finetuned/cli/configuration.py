"""``config``: what is set, where it comes from, and whether it can be used. Needs no daemon."""

from __future__ import annotations

from pathlib import Path

import click

from finetuned.cli import console, tables
from finetuned.cli.session import json_option
from finetuned.cli.shapes import ConfigCheck, Listing, Problem, Setting

UNUSABLE = 78  # EX_CONFIG, as the daemon itself would exit


@click.group
def config() -> None:
    """Check the daemon's configuration, or show where each value comes from."""


@config.command
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option(shape=ConfigCheck)
def check(*, file: Path | None, as_json: bool) -> int:
    """Say everything that is wrong in a configuration. Default: the one in force.

    The exit code is 78 if it cannot be used.
    """
    from finetuned import config as configuration  # noqa: PLC0415 - a tenth of a second that --help need not pay
    from finetuned import config_sources  # noqa: PLC0415
    from finetuned.domain.errors import ConfigError  # noqa: PLC0415

    path = file or config_sources.find_file()
    try:
        found = configuration.problems(config_sources.read(file))
    except ConfigError as error:  # it cannot even be read
        found = [error]
    problems: list[Problem] = [{"param": each.param, "message": each.message} for each in found]
    if as_json:
        answer: ConfigCheck = {
            "ok": not problems,
            "file": None if path is None else str(path),
            "problems": problems,
        }
        console.emit(answer)
    elif not problems:
        console.say("There is no file; the defaults can be used." if path is None else f"{path} can be used.")
    for problem in () if as_json else problems:
        console.say(problem["message"])
    return UNUSABLE if problems else 0


@config.command
@click.argument("key", required=False)
@json_option(shape=Listing[Setting] | Setting)
def show(*, key: str | None, as_json: bool) -> None:
    """Show each value and where it comes from: default, file and line, or variable."""
    from finetuned import config as configuration  # noqa: PLC0415 - as above
    from finetuned import config_sources  # noqa: PLC0415
    from finetuned.domain.errors import InvalidRequestError  # noqa: PLC0415
    from finetuned.spelling import nearest  # noqa: PLC0415

    values = configuration.load().model_dump(mode="json")
    sources = config_sources.read()
    settings: list[Setting] = [
        {"key": name, "value": value, "source": sources.source(name)} for name, value in values.items()
    ]
    if key is None:
        if as_json:
            console.emit({"data": settings, "has_more": False})
        else:
            shown = tables.table("KEY", "VALUE", "FROM")
            for each in settings:
                shown.add_row(each["key"], tables.compact(each["value"]), each["source"])
            console.show(shown)
        return
    named = [each for each in settings if each["key"] == key]
    if not named:
        raise InvalidRequestError(
            f"{key!r} is not a known key.{nearest(key, values)} `finetune config show` lists them.",
            param="key",
        )
    if as_json:
        console.emit(named[0])
    else:
        console.say(tables.compact(named[0]["value"]))
        console.note(f"From: {named[0]['source']}.")
