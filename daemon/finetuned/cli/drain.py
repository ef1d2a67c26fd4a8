"""``drain``: the end of a daemon without the loss of a step."""

from __future__ import annotations

import anyio
import click

from finetuned.cli import console
from finetuned.cli.session import json_option, with_daemon
from finetuned.client import Client
from finetuned.client.errors import UnreachableError
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import Drain

POLL_S = 0.3


@click.command("drain")
@click.option("--finish", is_flag=True, help="Let what runs come to its end, instead of pausing it.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 86_400),
    metavar="SECONDS",
    help="How long each checkpoint is waited for. Default: as each job says (30).",
)
@click.option("--reason", help="Why; it is kept in the log.")
@click.option("--cancel", is_flag=True, help="Take a drain back: jobs start again.")
@click.option(
    "--no-wait", is_flag=True, help="Only ask for it, and do not wait until the daemon has stopped."
)
@json_option("Print JSON: the drain as it began, or as it is after --cancel.", shape=Drain)
@with_daemon
async def drain(
    daemon: Client,
    *,
    finish: bool,
    wait_s: float | None,
    reason: str | None,
    cancel: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Start nothing new, have what runs save and leave, and stop the daemon.

    Paused jobs go on by themselves after the daemon's next start.
    """
    if cancel:
        if finish or wait_s is not None or reason is not None:
            raise InvalidRequestError(
                "--cancel takes a drain back; leave the other options out.", param="cancel"
            )
        await daemon.take_drain_back()
        console.emit(await daemon.drain_state()) if as_json else console.note("Jobs start again.")
        return
    begun = await daemon.drain(mode="finish" if finish else "pause", wait_s=wait_s, reason=reason)
    if as_json:
        console.emit(begun)
    if not no_wait:
        await _until_stopped(daemon, quiet=as_json)
    elif not as_json:
        console.note(f"Draining; {_left(begun)}.")


async def _until_stopped(daemon: Client, *, quiet: bool) -> None:
    said, up_s = "", (await daemon.alive())["uptime_s"]
    while True:
        try:
            with anyio.fail_after(5):
                state, now_up_s = await daemon.drain_state(), (await daemon.alive())["uptime_s"]
        except (UnreachableError, TimeoutError):
            break
        if (
            now_up_s < up_s
        ):  # something started it again: whoever connected to its activated socket, for instance
            break
        up_s = now_up_s
        if state["mode"] is None:
            raise InvalidRequestError(
                "The drain was taken back; the daemon goes on.", code="drain_taken_back"
            )
        if not quiet and (now := _left(state)) != said:
            said = now
            console.note(f"Draining; {said}.")
        await anyio.sleep(POLL_S)
    if not quiet:
        console.note("The daemon has stopped; what was paused goes on after its next start.")


def _left(state: Drain) -> str:
    count = len(state["jobs"])
    return (
        "nothing runs" if not count else f"{count} {'job has' if count == 1 else 'jobs have'} processes left"
    )
