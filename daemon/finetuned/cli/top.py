"""``top``: jobs and devices as they are now, live on a terminal, again and again in a pipe."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Protocol, Self

import anyio
import anyio.abc
import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from finetuned.cli import console, dashboard
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Look
from finetuned.client import Client
from finetuned.client.errors import UnreachableError
from finetuned.client.follow import ResetError
from finetuned.domain.states import TERMINAL, JobState
from finetuned.wire import Job

JOBS = 50  # of the newest, and of each state of those that live
#: In the order of a life: who goes on meanwhile is seen twice rather than never.
LIVE = tuple(state for state in JobState if state not in TERMINAL)
SHORTEST = 0.25  # seconds between two looks, however much happens
QUIT = frozenset(b"qQ\x03\x04")  # q, and what Ctrl-C and Ctrl-D send


@click.command
@click.option(
    "--interval", type=click.FloatRange(0.5, 3600), default=2.0, show_default=True,
    help="Seconds between two looks at the machine; jobs are shown as they change.",
)  # fmt: skip
@click.option(
    "--times", type=click.IntRange(1), help="Stop after so many looks. Default: go on until q or Ctrl-C."
)
@json_option("Print JSON: each look on a line.", shape=Look, lines=True)
@with_daemon
async def top(daemon: Client, *, interval: float, times: int | None, as_json: bool) -> None:
    """Watch jobs and devices: what runs, what waits, who holds what. q ends it."""
    first = await look(daemon)  # a daemon that is not there is an error, and no empty screen
    out = console.stdout()
    live = out.is_terminal and not out.is_dumb_terminal and not as_json
    keys = live and sys.stdin.isatty()
    with (
        _unbuffered(sys.stdin.fileno()) if keys else nullcontext(),
        _Screen(out) if live else _Lines(out, as_json=as_json) as view,
    ):
        async with anyio.create_task_group() as tasks:
            changed = _Changed()
            tasks.start_soon(_listen, daemon, changed, view)
            if keys:
                tasks.start_soon(_until_quit, tasks.cancel_scope)
            view.show(first)
            shown = 1
            while times is None or shown < times:
                with anyio.move_on_after(interval):
                    await changed.wait()
                try:
                    view.show(await look(daemon))
                    shown += 1
                except UnreachableError as error:
                    view.trouble(error.message)
                await anyio.sleep(SHORTEST)
            tasks.cancel_scope.cancel()


async def look(daemon: Client) -> Look:
    """Everything that is shown; what has not changed is not sent again."""
    return {
        "at": datetime.now(UTC).isoformat(),
        "system": await daemon.system(),
        "workers": await daemon.workers(),
        "jobs": await _jobs(daemon),
    }


async def _jobs(daemon: Client) -> list[Job]:
    """The newest jobs, and those that live however many came after them; newest first."""
    newest = await daemon.jobs(limit=JOBS)
    found = {job["id"]: job for job in newest["data"]}
    if newest["has_more"]:
        for state in LIVE:
            found |= {job["id"]: job for job in (await daemon.jobs(state=state, limit=JOBS))["data"]}
    return sorted(found.values(), key=lambda job: job["created_at"] or "", reverse=True)


class _Changed:
    """Whether something happened since it was last asked."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = anyio.Event()


async def _listen(daemon: Client, changed: _Changed, view: _View) -> None:
    """Have each event bring the next look forward."""
    while True:
        try:
            after = (await daemon.log_state())["head"]
            async with aclosing(daemon.follow(after=after, on_connection=view.trouble)) as events:
                async for _ in events:
                    changed.set()
        except (UnreachableError, ResetError):
            await anyio.sleep(1)


async def _until_quit(scope: anyio.CancelScope) -> None:
    while True:
        await anyio.wait_readable(sys.stdin)
        pressed = os.read(sys.stdin.fileno(), 64)
        if not pressed or not QUIT.isdisjoint(pressed):
            scope.cancel()
            return


@contextmanager
def _unbuffered(descriptor: int) -> Iterator[None]:
    """Keys as they are pressed, and not shown."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class _View(Protocol):
    def show(self, found: Look) -> None: ...

    def trouble(self, text: str | None) -> None: ...


class _Lines:
    """Plain text or JSON, one look after the other."""

    def __init__(self, out: Console, *, as_json: bool) -> None:
        self._out, self._as_json = out, as_json

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def show(self, found: Look) -> None:
        if self._as_json:
            console.emit(found)
            return
        console.say(found["at"])
        console.show(dashboard.machine(found["system"]))
        console.show(dashboard.jobs(_shown(found), found["workers"]), empty="No jobs.")
        console.say("")

    def trouble(self, text: str | None) -> None:
        if text is not None:
            console.note(f"Connection lost ({text}); trying again …")


class _Screen:
    """The whole terminal, which is as it was at the end."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._live = Live(console=out, screen=True, auto_refresh=False, vertical_overflow="crop")
        self._trouble: str | None = None
        self._found: Look | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def show(self, found: Look) -> None:
        self._found = found
        self._draw()

    def trouble(self, text: str | None) -> None:
        if text != self._trouble:
            self._trouble = text
            self._draw()

    def _draw(self) -> None:
        if self._found is not None:
            self._live.update(
                screen(self._found, trouble=self._trouble, height=self._out.height), refresh=True
            )


def screen(found: Look, *, trouble: str | None, height: int) -> Group:
    """Machine, GPUs and jobs on ``height`` lines at most."""
    machine = dashboard.machine(found["system"])
    gpus = dashboard.gpus(found["system"])
    above = machine.row_count + (gpus.row_count + 2 if gpus.row_count else 0)
    shown = _shown(found)[: max(1, height - above - 4)]
    foot = Text("q quits", style="dim")
    if trouble is not None:
        foot = Text(f"connection lost ({trouble}); trying again", style="yellow")
    parts: list[RenderableType] = [machine, Text("")]
    parts += [gpus, Text("")] if gpus.row_count else []
    return Group(*parts, dashboard.jobs(shown, found["workers"]), Text(""), foot)


def _shown(found: Look) -> list[Job]:
    """Live jobs first, those that run before those that wait; then those that ended, the newest first."""
    live = [job for job in found["jobs"] if JobState(job["state"]) not in TERMINAL]
    ended = [job for job in found["jobs"] if JobState(job["state"]) in TERMINAL]
    live.sort(key=lambda job: (not job["devices"], job["queue_position"] or 0))
    return [*live, *ended]
