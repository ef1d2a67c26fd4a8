"""What commands share: an open client, the event loop, ``--json``."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
import click

from finetuned.cli import console
from finetuned.client import Client
from finetuned.wire import Event, Job

P = ParamSpec("P")
R = TypeVar("R")


def with_daemon(command: Callable[Concatenate[Client, P], Awaitable[R]]) -> Callable[P, R]:
    """Run an asynchronous command with a client of the daemon as its first argument."""

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        async def work() -> R:
            async with Client(on_connection=_Away()) as daemon:
                return await command(daemon, *args, **kwargs)

        try:
            return anyio.run(work)
        except BaseExceptionGroup as group:  # of a task group: what a user is told is the first of them
            raise _first(group) from None

    return call


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Away:
    """Says once that the daemon is waited for."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, trouble: str | None) -> None:
        if trouble is not None and not self._told:
            console.note("The daemon went away or has too much to do; asking again. Nothing is done twice.")
            self._told = True


def at_option(command: Callable[P, R]) -> Callable[P, R]:
    """``--at``: a look into the past."""
    return click.option(
        "--at", metavar="SEQ|TIME", help="As it was at this position of the log, or this RFC 3339 time."
    )(command)


def paged(command: Callable[P, R]) -> Callable[P, R]:
    """``--no-pager`` for a command whose output may be long; JSON and what is followed are not paged."""

    @click.option("--no-pager", "no_pager", is_flag=True, help="Do not page long output.")
    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        plain = kwargs.pop("no_pager") or kwargs.get("as_json") or kwargs.get("follow")
        with console.pager(wanted=not plain):
            return command(*args, **kwargs)

    return call


class JsonOption(click.Option):
    """``--json``, which knows the ``shape`` of what is printed, and whether that comes one a line."""

    def __init__(self, *args: Any, shape: object = None, lines: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shape, self.lines = shape, lines


def json_option(
    help_text: str = "Print JSON.", *, shape: object = None, lines: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """``--json``: stdout then carries nothing but JSON of that ``shape``; with ``lines`` one document a line."""
    return click.option(
        "--json", "as_json", cls=JsonOption, is_flag=True, help=help_text, shape=shape, lines=lines
    )


def watch_option(
    help_text: str, *, shape: object = Job | Event
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """``--watch`` for a command that submits a job, and the ``--json`` that goes with it."""
    as_json = json_option(
        "Print JSON: the job; with --watch its events and the ended job, one a line.",
        shape=shape,
        lines=True,
    )
    watching = click.option("--watch", "watching", is_flag=True, help=help_text)
    return lambda command: watching(as_json(command))
