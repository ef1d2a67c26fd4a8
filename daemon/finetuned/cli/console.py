"""Where the command line writes: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from finetuned.cli import printable

Json = Any

PIPE_WIDTH = 500  # a pipe has no width: nothing is cut for it
LESS = "FRX"  # quit if it fits one screen, keep colours, leave the text on the screen; LESS overrides it

_paged_width: int | None = None  # the terminal's width while a pager stands between it and this program
_held: list[str] = []  # what is to be said when the pager has ended


class _Console(Console):
    """Obeys nothing that is in the text: neither control characters nor what rich would take for markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, with control characters made visible: each text of a table passes here, too."""
        return super().render(visible(renderable), options)

    def on_broken_pipe(self) -> None:
        """Leave it to the one place that knows the exit codes."""
        raise BrokenPipeError


def visible(renderable: RenderableType) -> RenderableType:
    """A text with its control characters made visible; anything else as it is."""
    if isinstance(renderable, str):
        return printable.visible(renderable)
    if isinstance(renderable, Text) and (seen := printable.visible(renderable.plain)) != renderable.plain:
        renderable = renderable.copy()
        renderable.plain = seen
    return renderable


def stdout() -> Console:
    """A console on stdout; plain where it is not a terminal."""
    if _paged_width is not None:
        return _Console(file=sys.stdout, width=_paged_width, force_terminal=True)
    return _console(stderr=False)


def stderr() -> Console:
    """A console on stderr; plain where it is not a terminal."""
    return _console(stderr=True)


def speaks_unicode(stream: TextIO) -> bool:
    """Whether every character can be written there."""
    return (stream.encoding or "").lower().startswith("utf")


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    console = _Console(file=stream, soft_wrap=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return _Console(file=stream, width=PIPE_WIDTH, soft_wrap=False)
    return console


def say(text: str | Text, *, style: str | None = None) -> None:
    """A sentence on stdout, as it stands."""
    stdout().print(text, style=style, soft_wrap=True)


def row(*fields: object) -> None:
    """Fields with tabs between them: a line that programs can take apart."""
    sys.stdout.write("\t".join(printable.field(str(each)) for each in fields) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A sentence on stderr, as it stands; behind what a pager shows."""
    if _paged_width is not None:
        _held.append(text)
        return
    stderr().print(text, soft_wrap=True)


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
    text = json.dumps(value, ensure_ascii=not speaks_unicode(sys.stdout))
    sys.stdout.write(printable.document(text) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def pager(*, wanted: bool = True) -> Iterator[None]:
    """Have what is written to stdout go through ``$PAGER``, or less, if it is a terminal.

    Who leaves the pager early has seen enough: that is no error.
    """
    command = _pager_command() if wanted and sys.stdout.isatty() else None
    if command is None:
        yield
        return
    global _paged_width  # noqa: PLW0603 - the one stdout of the process
    width = shutil.get_terminal_size().columns
    environment = {"LESS": LESS, **os.environ}
    with subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        sys.stdout.flush()
        terminal, descriptor = os.dup(sys.stdout.fileno()), sys.stdout.fileno()
        os.dup2(process.stdin.fileno(), descriptor)
        process.stdin.close()
        _paged_width = width
        try:
            with contextlib.suppress(BrokenPipeError):
                yield
                sys.stdout.flush()
        finally:
            _paged_width = None
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.flush()
            os.dup2(terminal, descriptor)
            os.close(terminal)
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pager's while it shows
            process.wait()
            signal.signal(signal.SIGINT, before)
            while _held:
                note(_held.pop(0))


def _pager_command() -> str | None:
    """``$PAGER``, else less if it is there; ``None`` for no pager at all."""
    named = os.environ.get("PAGER")
    if named is None:
        return "less" if shutil.which("less") else None
    return named if named.strip() not in {"", "cat"} else None
