"""``tokens``: who may reach the daemon over TCP."""

from __future__ import annotations

import click

from finetuned.cli import console, tables
from finetuned.cli.session import json_option, with_daemon
from finetuned.client import Client

SCOPES = ("read", "operate", "admin")


@click.group
def tokens() -> None:
    """Make, list and revoke access tokens."""


@tokens.command
@click.option("--scope", type=click.Choice(SCOPES), required=True, help="What the token may do.")
@click.option("--name", help="What it is for.")
@json_option("Print JSON: `id`, `token` and the rest.")
@with_daemon
async def create(daemon: Client, *, scope: str, name: str | None, as_json: bool) -> None:
    """Make a token. It is printed this once and not kept."""
    token = await daemon.create_token(scope=scope, name=name)
    if as_json:
        console.emit(token)
        return
    console.say(str(token["token"]))
    console.note(
        f"{token['id']} ({token['scope']}). Keep it now, it is not shown again: put it into FINETUNED_TOKEN. "
        f"`finetune tokens revoke {token['id']}` closes it."
    )


@tokens.command("list")
@json_option()
@with_daemon
async def list_tokens(daemon: Client, *, as_json: bool) -> None:
    """List tokens, revoked ones too, without their secrets."""
    listed = await daemon.tokens()
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(tables.tokens(listed), empty="No tokens. `finetune tokens create` makes one.")


@tokens.command
@click.argument("token_id", metavar="TOKEN_ID")
@json_option()
@with_daemon
async def revoke(daemon: Client, *, token_id: str, as_json: bool) -> None:
    """Close a token; it opens nothing any more."""
    await daemon.revoke_token(token_id)
    if as_json:
        console.emit({"id": token_id, "object": "token", "revoked": True})
    else:
        console.say(f"{token_id} is revoked.")
