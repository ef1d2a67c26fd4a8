"""Where the command line writes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

Json = Any

PIPE_WIDTH = 500  # a pipe has no width: nothing is cut for it


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the one place that knows the exit codes."""
        raise BrokenPipeError


def stdout() -> Console:
    """A console on stdout; plain where it is not a terminal."""
    return _console(stderr=False)


def stderr() -> Console:
    """A console on stderr; plain where it is not a terminal."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return _Console(file=stream, width=width, highlight=False, soft_wrap=False)


def say(text: str, *, style: str | None = None) -> None:
    """A sentence on stdout, as it stands."""
    stdout().print(text, style=style, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A sentence on stderr, as it stands."""
    stderr().print(text, markup=False, soft_wrap=True)


def show(table: Table, *, empty: str = "") -> None:
    """A table on stdout, or ``empty`` on stderr if it has no rows."""
    if not table.row_count:
        note(empty)
        return
    out = stdout()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:  # rich fills lines up with spaces, which a pipe need not carry
        out.print(table)
    for line in captured.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


def emit(value: Json) -> None:
    """One JSON document on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()
