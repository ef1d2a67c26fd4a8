"""``tokens``: who may reach the daemon over TCP."""

from __future__ import annotations

import re
from typing import Any

import click

from finetuned.cli import console, tables, units
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Listing
from finetuned.client import Client
from finetuned.wire import NewToken, RevokedToken, Token

SCOPES = ("read", "operate", "admin")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Life(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.5
    """How long something is good, as ``90s``, ``30m``, ``12h``, ``30d`` or ``4w``; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds. Fails with a sentence."""
        match = re.fullmatch(r"([0-9]{1,9})([smhdw])", str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no duration; write 12h, 30d or 4w.", param, ctx)
        return int(match[1]) * UNITS_S[match[2]]


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[Token])
@click.pass_context
def tokens(context: click.Context, *, as_json: bool) -> None:
    """Make, list and revoke access tokens."""
    if context.invoked_subcommand is None:
        context.invoke(list_tokens, as_json=as_json)


@tokens.command
@click.option("--scope", type=click.Choice(SCOPES), required=True, help="What the token may do.")
@click.option("--name", help="What it is for.")
@click.option(
    "--expires", type=Life(), metavar="TIME", help="How long it is good: 12h, 30d, 4w. Default: for ever."
)
@json_option("Print JSON: `id`, `token` and the rest.", shape=NewToken)
@with_daemon
async def create(daemon: Client, *, scope: str, name: str | None, expires: int | None, as_json: bool) -> None:
    """Make a token. It is printed this once and not kept."""
    token = await daemon.create_token(scope=scope, name=name, expires_in=expires)
    if as_json:
        console.emit(token)
        return
    console.say(str(token["token"]))
    console.note(
        f"{token['id']} ({token['scope']}, {_until(token)}). Keep it now, it is not shown again: put it into FINETUNED_TOKEN. "
        f"`finetune tokens revoke {token['id']}` closes it."
    )


def _until(token: NewToken) -> str:
    return f"good until {units.local(token['expires_at'])}" if token["expires_at"] else "it does not expire"


@tokens.command("list")
@json_option(shape=Listing[Token])
@with_daemon
async def list_tokens(daemon: Client, *, as_json: bool) -> None:
    """List tokens, revoked and expired ones too, without their secrets."""
    listed = await daemon.tokens()
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(tables.tokens(listed), empty="No tokens. `finetune tokens create` makes one.")


@tokens.command
@click.argument("token_id", metavar="TOKEN_ID")
@json_option(shape=RevokedToken)
@with_daemon
async def revoke(daemon: Client, *, token_id: str, as_json: bool) -> None:
    """Close a token; it opens nothing any more."""
    await daemon.revoke_token(token_id)
    if as_json:
        console.emit({"id": token_id, "object": "token", "revoked": True})
    else:
        console.say(f"{token_id} is revoked.")
