"""``logs``: what a job's processes printed, as it is, as it comes, or searched."""

from __future__ import annotations

import sys

import click
from rich.text import Text

from finetuned.cli import console
from finetuned.cli.arguments import job_argument
from finetuned.cli.session import json_option, paged, with_daemon
from finetuned.cli.shapes import Line
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import LogCounts, LogLine

LEVELS = ("debug", "info", "warning", "error")
STYLES = {"warning": "yellow", "error": "bold red", "debug": "dim"}


@click.command
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--tail", type=click.IntRange(0), help="Only the last so many lines.")
@click.option("--attempt", type=click.IntRange(0), help="Of this attempt. Default: of all, in order.")
@click.option("--search", "text", metavar="TEXT", help="Only lines that contain this, whatever its case.")
@click.option("--level", type=click.Choice(LEVELS), help="Only lines that look like this level.")
@click.option("--count", is_flag=True, help="Only how many lines, errors and warnings there are.")
@json_option("Print JSON, one object a line.", shape=Line | LogLine | LogCounts, lines=True)
@paged
@with_daemon
async def logs(
    daemon: Client,
    /,
    *,
    job_id: str,
    follow: bool,
    tail: int | None,
    attempt: int | None,
    text: str | None,
    level: str | None,
    count: bool,
    as_json: bool,
) -> None:
    """Print what a job's processes printed."""
    if count:
        _count(await _counted(daemon, job_id), as_json=as_json)
        return
    if text is not None or level is not None:
        if follow or tail is not None:
            raise InvalidRequestError(
                "What is searched for is neither followed nor cut; leave -f and --tail out."
            )
        async for line in daemon.all_log_lines(job_id, text or "", level=level, attempt=attempt):
            console.emit(line) if as_json else console.say(_found(line))
        return
    write = _LineWriter() if as_json else _RawWriter()
    chunks = (
        daemon.follow_logs(job_id, tail=tail, attempt=attempt, on_connection=_Connection(), on_gap=_gap)
        if follow
        else daemon.logs(job_id, tail=tail, attempt=attempt)
    )
    async for chunk in chunks:
        write(chunk)
    write.end()


class _Connection:
    """Says once that the connection is gone, and once that it is back."""

    def __init__(self) -> None:
        self._lost = False

    def __call__(self, trouble: str | None) -> None:
        if trouble is not None and not self._lost:
            console.note(f"Connection lost ({trouble}); trying again. The job goes on.")
        elif trouble is None and self._lost:
            console.note("Connected again; nothing is missing.")
        self._lost = trouble is not None


def _gap(place: str | None) -> None:
    console.note(f"Output was removed before it was read; it goes on at {place}.")


def _found(line: LogLine) -> Text:
    place = Text(f"{line['attempt']}:{line['line']}  ", style="dim")
    return place.append(line["text"], STYLES.get(line["level"] or "", "")).append(
        " …" if line["is_cut"] else ""
    )


async def _counted(daemon: Client, job_id: str) -> LogCounts:
    """The counts, asked for again while there is more to count and counting goes on."""
    counts, before = await daemon.log_counts(job_id), -1
    while not counts["is_complete"] and counts["lines"] > before:
        before = counts["lines"]
        counts = await daemon.log_counts(job_id)
    return counts


def _count(counts: LogCounts, *, as_json: bool) -> None:
    if as_json:
        console.emit(counts)
        return
    so_far = "" if counts["is_complete"] else " so far; there is more to count"
    console.say(f"{counts['lines']} lines, {counts['errors']} errors, {counts['warnings']} warnings{so_far}")


class _RawWriter:
    """Bytes as they come."""

    def __init__(self) -> None:
        self.begun = False

    def __call__(self, chunk: bytes) -> None:
        self.begun = True
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()

    def end(self) -> None:
        """Nothing is held back."""


class _LineWriter(_RawWriter):
    """``{"line": …}`` for each whole line."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""

    def __call__(self, chunk: bytes) -> None:
        self.begun = True
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            console.emit({"line": line.decode(errors="replace")})

    def end(self) -> None:
        """The last line, if it had no end."""
        if self._rest:
            console.emit({"line": self._rest.decode(errors="replace")})
            self._rest = b""
