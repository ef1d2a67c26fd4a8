"""``webhooks``: where the daemon sends events to."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.table import Table
from rich.text import Text

from finetuned.cli import console, units
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Gone, Listing
from finetuned.cli.tables import table
from finetuned.cli.tokens import Life
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import NewWebhook, Webhook, WebhookSecret, WebhookTest

NOT_TAKEN = 1  # exit code of a test that did not arrive


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[Webhook])
@click.pass_context
def webhooks(context: click.Context, *, as_json: bool) -> None:
    """Send events to other services, and see how far that has come."""
    if context.invoked_subcommand is None:
        context.invoke(list_webhooks, as_json=as_json)


@webhooks.command
@click.argument("url")
@click.option(
    "--type",
    "types",
    multiple=True,
    required=True,
    metavar="TYPE",
    help="What to send: job.succeeded, job.*, fine_tuning.job.succeeded, *. May be given again.",
)
@click.option("--name", help="What it is for.")
@json_option("Print JSON: `id`, `secret` and the rest.", shape=NewWebhook)
@with_daemon
async def add(daemon: Client, *, url: str, types: tuple[str, ...], name: str | None, as_json: bool) -> None:
    """Send events to URL from now on. The secret is printed this once."""
    made = await daemon.create_webhook(url, types, name=name)
    if as_json:
        console.emit(made)
        return
    console.say(made["secret"])
    console.note(
        f"{made['id']} sends {', '.join(made['types'])} to {made['url']}. Keep the secret now, it is not shown again: the"
        f" receiver verifies signatures with it. `finetune webhooks test {made['id']}` tries it."
    )


@webhooks.command("ls")
@json_option(shape=Listing[Webhook])
@with_daemon
async def list_webhooks(daemon: Client, *, as_json: bool) -> None:
    """List webhooks, without their secrets."""
    listed = await daemon.webhooks()
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(_table(listed), empty="No webhooks. `finetune webhooks add URL --type job.*` makes one.")


@webhooks.command
@click.argument("webhook_id", metavar="WEBHOOK_ID")
@json_option(shape=Webhook)
@with_daemon
async def show(daemon: Client, *, webhook_id: str, as_json: bool) -> None:
    """Show a webhook: how far it has come, what failed last, when it is tried again."""
    _say(await daemon.webhook(webhook_id), as_json=as_json)


@webhooks.command
@click.argument("webhook_id", metavar="WEBHOOK_ID")
@json_option(shape=Gone)
@with_daemon
async def rm(daemon: Client, *, webhook_id: str, as_json: bool) -> None:
    """End a webhook and forget its secret."""
    await daemon.delete_webhook(webhook_id)
    if as_json:
        console.emit({"id": webhook_id, "object": "webhook", "deleted": True})
    else:
        console.say(f"{webhook_id} is removed.")


@webhooks.command
@click.argument("webhook_id", metavar="WEBHOOK_ID")
@click.option("--after", type=click.IntRange(min=0), metavar="SEQ", help="Send what follows this position.")
@json_option(shape=Webhook)
@with_daemon
async def enable(daemon: Client, *, webhook_id: str, after: int | None, as_json: bool) -> None:
    """Send again after it was disabled: what was not sent yet."""
    _say(await daemon.enable_webhook(webhook_id, after=after), as_json=as_json)


@webhooks.command
@click.argument("webhook_id", metavar="WEBHOOK_ID")
@click.option(
    "--keep", type=Life(), metavar="TIME", help="How long the old secret signs too: 1h, 7d. Default: a day."
)
@click.option("--now", is_flag=True, help="The old secret signs nothing any more.")
@json_option("Print JSON: `secret` and the rest.", shape=WebhookSecret)
@with_daemon
async def rotate(daemon: Client, *, webhook_id: str, keep: int | None, now: bool, as_json: bool) -> None:
    """Make another secret. It is printed this once."""
    made = await daemon.rotate_webhook(webhook_id, keep_s=0 if now else keep)
    if as_json:
        console.emit(made)
        return
    console.say(made["secret"])
    until = f"signs too until {units.local(made['old_until'])}" if made["old_until"] else "signs no more"
    console.note(f"Give it to the receiver now, it is not shown again. The old one {until}.")


@webhooks.command
@click.argument("webhook_id", metavar="WEBHOOK_ID")
@json_option(shape=WebhookTest)
@with_daemon
async def test(daemon: Client, *, webhook_id: str, as_json: bool) -> int:
    """Send a test now and print what came of it. The exit code is 1 if it was not taken."""
    tested = await daemon.test_webhook(webhook_id)
    if as_json:
        console.emit(tested)
    else:
        came = tested["error"] or f"the receiver answered {tested['status']}"
        console.say(
            f"{'Taken' if tested['delivered'] else 'Not taken'} after {tested['seconds']:.2f} s: {came}"
        )
        if tested["body"]:
            console.say(tested["body"])
    return 0 if tested["delivered"] else NOT_TAKEN


@webhooks.command
@click.argument("webhook_id", metavar="WEBHOOK_ID")
@click.option("--after", type=click.IntRange(min=0), metavar="SEQ", help="What follows this position.")
@click.option("--since", metavar="TIME", help="What happened after this RFC 3339 time.")
@json_option(shape=Webhook)
@with_daemon
async def replay(
    daemon: Client, *, webhook_id: str, after: int | None, since: str | None, as_json: bool
) -> None:
    """Send again what follows a position or a time, with the ids that it had."""
    if (after is None) == (since is None):
        raise InvalidRequestError("Name one of --after SEQ and --since TIME.", param="after", code="usage")
    _say(await daemon.replay_webhook(webhook_id, after=after, since=since), as_json=as_json)


def _say(webhook: Webhook, *, as_json: bool) -> None:
    if as_json:
        console.emit(webhook)
        return
    for line in _lines(webhook):
        console.say(line)


def _lines(webhook: Webhook) -> Iterable[str]:
    name = f" ({webhook['name']})" if webhook["name"] else ""
    yield f"{webhook['id']}{name} sends {', '.join(webhook['types'])} to {webhook['url']}."
    rest = f"; {webhook['lag']} events of the log follow" if webhook["lag"] else ", the newest event"
    yield f"All is sent up to {webhook['position']}{rest}."
    if webhook["disabled_reason"]:
        yield f"Disabled: {webhook['disabled_reason']}. `finetune webhooks enable {webhook['id']}` goes on."
    failure = webhook["last_failure"]
    if failure:
        tries = f", {failure['tries']} in a row" if failure["tries"] else ", taken since"
        yield f"The last try that failed, at {units.local(failure['at'])}{tries}: {failure['reason']}."
    if webhook["next_try_at"]:
        yield f"Tried again at {units.local(webhook['next_try_at'])}."


def _table(listed: Iterable[Webhook]) -> Table:
    shown = table("ID", "URL", "TYPES", "STATE", "LAG", "NAME", right=("LAG",))
    for each in listed:
        shown.add_row(
            each["id"],
            Text(each["url"]),
            Text(", ".join(each["types"])),
            _state(each),
            str(each["lag"]),
            Text(each["name"] or ""),
        )
    return shown


def _state(webhook: Webhook) -> Text:
    if not webhook["enabled"]:
        return Text("disabled", style="red")
    failure = webhook["last_failure"]
    if failure and failure["tries"]:
        return Text(f"failing ({failure['tries']})", style="yellow")
    return Text("enabled", style="green")
