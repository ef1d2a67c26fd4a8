"""``secrets``: what jobs may use and nobody may read."""

from __future__ import annotations

import sys

import click

from finetuned.cli import console, tables
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Gone, Listing
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import Secret

LONGEST_INPUT = 1 << 16  # characters that are read from stdin


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[Secret])
@click.pass_context
def secrets(context: click.Context, *, as_json: bool) -> None:
    """Store, list and remove secrets that jobs can name."""
    if context.invoked_subcommand is None:
        context.invoke(list_secrets, as_json=as_json)


@secrets.command("set")
@click.argument("name")
@json_option(shape=Secret)
@with_daemon
async def set_secret(daemon: Client, *, name: str, as_json: bool) -> None:
    """Store a secret, or replace it. Its value is asked for, or read from stdin."""
    stored = await daemon.set_secret(name, _value())
    if as_json:
        console.emit(stored)
        return
    console.say(f"{name} is stored.")
    console.note(f"A job names it: `finetune run … --secret HF_TOKEN={name}`.")


@secrets.command("list")
@json_option(shape=Listing[Secret])
@with_daemon
async def list_secrets(daemon: Client, *, as_json: bool) -> None:
    """List secrets by name."""
    listed = await daemon.secrets()
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(tables.secrets(listed), empty="No secrets. `finetune secrets set NAME` stores one.")


@secrets.command
@click.argument("name")
@json_option(shape=Gone)
@with_daemon
async def rm(daemon: Client, *, name: str, as_json: bool) -> None:
    """Remove a secret. Jobs that name it and have not started will fail to."""
    await daemon.delete_secret(name)
    if as_json:
        console.emit({"id": name, "object": "secret", "deleted": True})
    else:
        console.say(f"{name} is removed.")


def _value() -> str:
    """The value: never from the command line, which every user of the machine can read."""
    if sys.stdin.isatty():
        value: str = click.prompt("Value", hide_input=True, err=True)
    else:
        value = sys.stdin.read(LONGEST_INPUT)
    value = value.strip()
    if not value:
        raise InvalidRequestError(
            "There is no value on stdin; type it when asked, or pipe it in: `finetune secrets set hf < FILE`.",
            param="value",
        )
    return value
