"""``drain``: the end of a daemon without the loss of a step."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, Literal

import anyio.to_thread
import click

from finetuned.cli import console
from finetuned.cli.checks import command
from finetuned.cli.session import json_option, with_daemon
from finetuned.client import Client
from finetuned.client.endpoint import SYSTEM_SOCKET
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import Drain

BOOTED: Final = Path("/run/systemd/system")
KEEP_DOWN: Final = "To keep it down: `sudo systemctl stop finetuned.socket finetuned-tcp.socket finetuned`."


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
    mode: Literal["pause", "finish"] = "finish" if finish else "pause"
    if no_wait:
        begun = await daemon.drain(mode=mode, wait_s=wait_s, reason=reason)
        console.emit(begun) if as_json else console.note(f"Draining; {_left(begun)}.")
        return
    said = ""
    async with aclosing(daemon.drained(mode=mode, wait_s=wait_s, reason=reason)) as states:
        async for state in states:
            if as_json and not said:
                console.emit(state)
            elif not as_json and (now := _left(state)) != said:
                console.note(f"Draining; {now}.")
            said = _left(state)
    if not as_json:
        console.note("The daemon has stopped; what was paused goes on after its next start.")
        if await anyio.to_thread.run_sync(is_held_by_systemd, daemon.endpoint.socket):
            console.note(f"systemd holds its socket: the next client starts it again. {KEEP_DOWN}")


def is_held_by_systemd(
    socket: Path | None, run: Callable[[Sequence[str]], str] = command, *, booted: Path = BOOTED
) -> bool:
    """Whether the socket unit of the installed service listens at ``socket``. Nothing connects to it. Blocks."""
    if socket != SYSTEM_SOCKET or not booted.exists():
        return False
    try:
        return run(["systemctl", "is-active", "finetuned.socket"]).strip() == "active"
    except (OSError, subprocess.SubprocessError):
        return False


def _left(state: Drain) -> str:
    count = len(state["jobs"])
    return (
        "nothing runs" if not count else f"{count} {'job has' if count == 1 else 'jobs have'} processes left"
    )
