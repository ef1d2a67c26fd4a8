"""``metrics``: a job's curves, drawn in the terminal or as lines for a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import anyio
import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from finetuned.cli import console, plot
from finetuned.cli.arguments import job_argument
from finetuned.cli.session import at_option, json_option, with_daemon
from finetuned.client import Client
from finetuned.client.errors import UnreachableError
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.states import TERMINAL, JobState
from finetuned.spelling import nearest
from finetuned.wire import Job, Metrics

LOOK_EVERY = 1.0  # seconds; an answer that has not changed is not sent again
MOST_CHARTS = 4
ROWS, FEWEST_ROWS = 10, 4  # of a chart

#: What is drawn if nothing is named: those that most runs have. Curves of one line share a chart.
USUAL = (("loss", "eval_loss"), ("mean_token_accuracy", "eval_mean_token_accuracy"), ("learning_rate",))

Names = tuple[str, ...]


@click.command
@job_argument
@click.option(
    "--names",
    metavar="A,B,...",
    help="Only these curves; joined by + they share a chart: loss+eval_loss,grad_norm.",
)
@click.option(
    "--points", type=click.IntRange(4, 4000), help="About how many points of each. Default: what fits."
)
@click.option(
    "--attempts", is_flag=True, help="A curve for each attempt, with the steps that were done again."
)
@click.option("--watch", "watching", is_flag=True, help="Go on until the job ends.")
@at_option
@json_option(
    "Print JSON: the curves; with --watch each time that they have changed, one a line.",
    shape=Metrics,
    lines=True,
)
@with_daemon
async def metrics(
    daemon: Client,
    /,
    *,
    job_id: str,
    names: str | None,
    points: int | None,
    attempts: bool,
    watching: bool,
    at: str | None,
    as_json: bool,
) -> None:
    """Draw a job's curves: loss, learning rate and what else it reports.

    In a pipe: a line for each point, with the curve's name, step, time and value.
    """
    if watching and at is not None:
        raise InvalidRequestError("What was does not change; leave --watch or --at out.", param="--at")
    groups = [tuple(group.split("+")) for group in names.split(",")] if names else []
    out = console.stdout()
    wanted = points if points is not None else (plot.DOTS_X * out.width if out.is_terminal else None)

    async def look() -> Metrics:
        asked = [name for group in groups for name in group]
        found = await daemon.metrics(
            job_id, names=asked, points=wanted, attempts="all" if attempts else None, at=at
        )
        _must_be_there(asked, found, job_id)
        return found

    view: _View = _Json() if as_json else _Charts(groups, out) if _draws(out) else _Lines()
    if not watching:
        view.show(await look(), last=True)
        return
    with view:
        while True:
            try:
                job: Job = await daemon.job(job_id)  # before the curves: they are complete once it has ended
                view.show(await look(), last=JobState(job["state"]) in TERMINAL)
                if JobState(job["state"]) in TERMINAL:
                    return
            except UnreachableError as error:
                view.trouble(error.message)
            await anyio.sleep(LOOK_EVERY)


def _must_be_there(asked: Sequence[str], found: Metrics, job_id: str) -> None:
    for name in asked:
        if name not in found["names"]:
            known = f" It has {', '.join(found['names'])}." if found["names"] else " It has none yet."
            raise InvalidRequestError(
                f"{job_id} has no curve {name!r}.{nearest(name, found['names']) or known}",
                param="names",
                code="unknown_name",
            )


def _draws(out: Console) -> bool:
    return out.is_terminal and not out.is_dumb_terminal


class _View:
    """Where curves go. A context manager: a live display has an end."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None: ...

    def show(self, found: Metrics, *, last: bool) -> None:
        """Show the curves as they are now; ``last`` if they will not change any more."""

    def trouble(self, text: str) -> None:
        """Say that the daemon does not answer."""
        console.note(text)


class _Json(_View):
    def __init__(self) -> None:
        self._seq = -1

    def show(self, found: Metrics, *, last: bool) -> None:
        del last
        if found["seq"] != self._seq:
            self._seq = found["seq"]
            console.emit(found)


class _Lines(_View):
    """``NAME ATTEMPT STEP TIME VALUE``, each point once."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int | None], tuple[str, int]] = {}

    def show(self, found: Metrics, *, last: bool) -> None:
        del last
        for series in found["series"]:
            key = (series["name"], series["attempt"])
            for step, at, value in zip(series["steps"], series["times"], series["values"], strict=True):
                if (at, step) > self._told.get(key, ("", 0)):
                    attempt = "-" if series["attempt"] is None else series["attempt"]
                    console.row(series["name"], attempt, step, at, repr(value))
                    self._told[key] = (at, step)


class _Charts(_View):
    """One chart a group of curves, over the whole width."""

    def __init__(self, groups: Sequence[Names], out: Console) -> None:
        self._groups, self._out = groups, out
        self._live: Live | None = None
        self._shown: Group | None = None
        self._trouble: str | None = None

    def __enter__(self) -> None:
        self._live = Live(console=self._out, auto_refresh=False, transient=True)
        self._live.start()

    def __exit__(self, *exc_info: object) -> None:
        assert self._live is not None
        self._live.stop()
        if self._shown is not None:
            self._out.print(self._shown)

    def show(self, found: Metrics, *, last: bool) -> None:
        self._shown = charts(
            found, self._groups, width=self._out.width, height=self._out.height, plain=_plain(self._out)
        )
        if self._live is None:
            self._out.print(self._shown)
        else:
            self._live.update(self._shown, refresh=not last)

    def trouble(self, text: str) -> None:
        if self._live is not None and self._shown is not None:
            self._live.update(Group(self._shown, Text(text, style="yellow")), refresh=True)


def _plain(out: Console) -> bool:
    return not out.encoding.startswith("utf")


def charts(found: Metrics, groups: Sequence[Names], *, width: int, height: int, plain: bool) -> Group:
    """The charts of ``groups`` of curves, or of the usual ones, so that they fit the screen."""
    curves = _curves(found)
    present = [
        [curve for name in group for curve in curves.get(name, [])]
        for group in groups or _usual(found["names"])
    ]
    drawn = [each for each in present if each]
    if not drawn:
        return Group(Text("The job has reported no figures yet.", style="dim"))
    rows = min(ROWS, max(FEWEST_ROWS, (height - 2) // len(drawn) - 3))
    lines: list[Text] = []
    for group in drawn:
        lines += [
            plot.legend(group, plain=plain),
            *plot.chart(group, width=width, height=rows, plain=plain),
            Text(""),
        ]
    shown = {curve.name.partition(" ")[0] for group in drawn for curve in group}
    if others := [name for name in found["names"] if name not in shown]:
        lines.append(Text(f"also: {', '.join(others)}", style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def _curves(found: Metrics) -> dict[str, list[plot.Curve]]:
    by_name: dict[str, list[plot.Curve]] = {}
    for series in found["series"]:
        label = (
            series["name"] if series["attempt"] is None else f"{series['name']} attempt {series['attempt']}"
        )
        points = list(zip(map(float, series["steps"]), series["values"], strict=True))
        by_name.setdefault(series["name"], []).append(plot.Curve(label, points))
    return by_name


def _usual(names: Sequence[str]) -> list[Names]:
    usual: list[Names] = [group for group in USUAL if any(name in names for name in group)]
    return usual or [(name,) for name in islice(names, MOST_CHARTS)]
