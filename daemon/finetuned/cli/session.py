"""What commands share: an open client, the event loop, ``--json``."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

import anyio
import click

from finetuned.client import Client

P = ParamSpec("P")
R = TypeVar("R")


def with_daemon(command: Callable[Concatenate[Client, P], Awaitable[R]]) -> Callable[P, R]:
    """Run an asynchronous command with a client of the daemon as its first argument."""

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        async def work() -> R:
            async with Client() as daemon:
                return await command(daemon, *args, **kwargs)

        return anyio.run(work)

    return call


def json_option(help_text: str = "Print JSON.") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """``--json``: stdout then carries nothing but JSON."""
    return click.option("--json", "as_json", is_flag=True, help=help_text)
