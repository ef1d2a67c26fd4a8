"""``models``: what can be trained and what was made."""

from __future__ import annotations

from pathlib import Path

import click

from finetuned.cli import console, listings, parameters, tables, units, watch
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option, watch_option, with_daemon
from finetuned.cli.shapes import Gone, Listing
from finetuned.client import Client
from finetuned.wire import Alias, Lineage, Model


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[Model])
@click.pass_context
def models(context: click.Context, *, as_json: bool) -> None:
    """List, import and remove models, and show where they come from."""
    if context.invoked_subcommand is None:
        context.invoke(list_models, as_json=as_json)


@models.command("list")
@json_option(shape=Listing[Model])
@with_daemon
async def list_models(daemon: Client, *, as_json: bool) -> None:
    """List the registered models."""
    listed = [each for each in await daemon.models() if each["stands_for"] is None]
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(tables.models(listed), empty="No models. `finetune models import-gguf` makes one.")


@models.command
@click.argument("name")
@json_option(shape=Model)
@with_daemon
async def show(daemon: Client, *, name: str, as_json: bool) -> None:
    """Show a model and what it was made from."""
    model = await daemon.model(name)
    if as_json:
        console.emit(model)
        return
    console.say(model["id"], style="bold")
    facts = {
        "kind": model["kind"],
        "path": model["path"],
        "base": model["base"] or units.NOTHING,
        "job": model["job"] or units.NOTHING,
        "ft name": model["fine_tuned_model"] or units.NOTHING,
        "aliases": ", ".join(model["aliases"]) or units.NOTHING,
        "created": units.unix_local(model["created"]),
        **{key: tables.compact(value) for key, value in model["lineage"].items()},
    }
    for key, value in facts.items():
        console.say(f"{key:<14} {value}")


@models.command
@click.argument("name")
@json_option(shape=Lineage)
@with_daemon
async def lineage(daemon: Client, *, name: str, as_json: bool) -> None:
    """Show what a model was made from, and what was made from it."""
    found = await daemon.lineage(name)
    if as_json:
        console.emit(found)
        return
    for line in listings.lineage(found):
        console.say(line)


@models.command
@click.argument("name")
@json_option(shape=Gone)
@with_daemon
async def rm(daemon: Client, *, name: str, as_json: bool) -> None:
    """Free a model's name. Its files stay."""
    await daemon.delete_model(name)
    if as_json:
        console.emit({"id": name, "object": "model", "deleted": True})
    else:
        console.say(f"{name} is no longer registered; its files stay.")


@models.command
@click.argument("model")
@click.option(
    "--as", "alias", required=True, metavar="ALIAS", help="The alias, such as support-bot@production."
)
@json_option(shape=Alias)
@with_daemon
async def promote(daemon: Client, *, model: str, alias: str, as_json: bool) -> None:
    """Have an alias stand for a model from now on.

    MODEL is a registered model, its ft: name, or another alias: what support-bot@staging stands for, say.
    """
    _say(await daemon.promote(model, alias), as_json=as_json)


@models.command
@click.argument("alias")
@json_option(shape=Alias)
@with_daemon
async def rollback(daemon: Client, *, alias: str, as_json: bool) -> None:
    """Have an alias stand for the model before."""
    _say(await daemon.roll_back(alias), as_json=as_json)


@models.command
@click.argument("alias")
@json_option(shape=Gone)
@with_daemon
async def unalias(daemon: Client, *, alias: str, as_json: bool) -> None:
    """Free an alias. Its model stays."""
    await daemon.delete_alias(alias)
    if as_json:
        console.emit({"id": alias, "object": "alias", "deleted": True})
    else:
        console.say(f"{alias} stands for nothing any more; its model stays.")


@models.command
@json_option(shape=Listing[Alias])
@with_daemon
async def aliases(daemon: Client, *, as_json: bool) -> None:
    """List the aliases, what they stand for, and for what before."""
    listed = await daemon.aliases()
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(
            tables.aliases(listed), empty="No aliases. `finetune models promote MODEL --as ALIAS` makes one."
        )


def _say(alias: Alias, *, as_json: bool) -> None:
    if as_json:
        console.emit(alias)
        return
    before = f" (before: {alias['history'][0]})" if alias["history"] else ""
    console.say(f"{alias['id']} stands for {alias['model']}{before}.")


@models.command("import-gguf")
@click.argument("file")
@click.option("--name", required=True, help="The name to register the model under.")
@click.option("--dtype", help="The type to store the weights in: float32, bfloat16 or float16.")
@watch_option("Stay until it is done.")
@with_daemon
async def import_gguf(
    daemon: Client, *, file: str, name: str, dtype: str | None, watching: bool, as_json: bool
) -> int:
    """Turn a GGUF file into a model that can be trained, and register it.

    FILE is a GGUF file, or a wheel, zip or folder that holds one.
    """
    params = parameters.absolute_paths({"file": file, "name": name}, here=Path.cwd())
    if dtype is not None:
        params["dtype"] = dtype
    job = await daemon.submit("import-gguf", params, name=f"import {name}")
    if as_json:
        console.emit(job)
    else:
        console.say(f"{job['id']} is {job['state']}.")
    return await watch.to_the_end(daemon, job, as_json=as_json) if watching else 0
