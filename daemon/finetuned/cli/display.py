"""What ``watch`` shows while a job runs: live bars on a terminal, lines in a pipe, JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finetuned.cli import console, tables, timeline, units
from finetuned.domain.states import JobState
from finetuned.wire import Event, Job

Json = Any

LINE_EVERY = 10.0  # seconds between two progress lines in a pipe
REFRESHES = 4  # a second; the trainer wants the cores

#: What is told above the bar, beside changes of state.
NOTED = frozenset(
    {
        "dataset.audited",
        "evaluation.recorded",
        "job.advice",
        "attempt.error",
        "attempt.line_rejected",
        "attempt.intervened",
        "attempt.alert",
    }
)


class View(Protocol):
    """Where a watched job's events go. A context manager: a live display has an end."""

    def begin(self, job: Job) -> None:
        """Show the job as it is; its events from there on follow."""

    def event(self, event: Event) -> None:
        """Show an event."""

    def connection(self, trouble: str | None) -> None:
        """The stream broke off, or (``None``) is there."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""


@dataclass(slots=True)
class Watched:
    """What is known of a job: as it was when it was looked up, and what its events said since."""

    job_id: str
    state: JobState | None = None
    phase: str = ""
    figures: dict[str, Json] = field(default_factory=dict)

    def begin(self, job: Job) -> None:
        """Take the job as it is."""
        self.state = JobState(job["state"])
        self.phase = _words(job["phase"])
        self.figures = job["progress"] or {}

    def apply(self, event: Event) -> str:
        """Take an event in; what is worth telling of it, or nothing."""
        before = self.state
        self.state = timeline.state_after(before, event)
        kind, data = event["type"], event["data"]
        if kind == "job.progress":
            self.figures = dict(data)
            return ""
        if kind == "job.phase":
            self.phase = _words(data["phase"])
            return ""
        text = timeline.describe(event)
        if self.state is not before and self.state is not None:
            self.phase = ""
            if self.state is JobState.FAILED:
                return self.state.value  # why is said at the end
            return f"{self.state.value}: {text}" if text else self.state.value
        if kind == "attempt.ended":
            return text
        return text if kind in NOTED else ""


class _View:
    """The shared half: a job's state and a context that does nothing."""

    def __init__(self, job_id: str) -> None:
        self.watched = Watched(job_id)

    def begin(self, job: Job) -> None:
        """Take the job as it is; show nothing of it."""
        self.watched.begin(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Quiet(_View):
    """Nothing at all, for who only wants the end."""

    def event(self, event: Event) -> None:
        """Look away."""

    def connection(self, trouble: str | None) -> None:
        """Look away."""


class JsonView(_View):
    """Each event as one line of JSON; trouble on stderr."""

    def event(self, event: Event) -> None:
        """Print the event."""
        console.emit(event)

    def connection(self, trouble: str | None) -> None:
        """Say so on stderr."""
        if trouble is not None:
            console.note(f"Connection lost ({trouble}); trying again …")


class LineView(_View):
    """One line for each change, and for progress now and then."""

    def __init__(self, job_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(job_id)
        self._clock = clock
        self._next = clock()
        self._told: dict[str, Json] = {}
        self._lost = False

    def begin(self, job: Job) -> None:
        """One line on how it stands, and one with its figures."""
        super().begin(job)
        at = units.local(job["updated_at"] or job["created_at"], date=False)
        told = (job["state"], self.watched.phase, job["wait_reason"])
        console.say(f"{at}  {': '.join(part for part in told if part)}")
        self._progress(at)

    def event(self, event: Event) -> None:
        """Print a line if there is something to tell."""
        phase = self.watched.phase
        text = self.watched.apply(event)
        at = units.local(event["at"], date=False)
        if text or (event["type"] == "job.phase" and self.watched.phase != phase):
            self._progress(at)
            console.say(f"{at}  {text or self.watched.phase}")
        elif event["type"] == "job.progress" and self._clock() >= self._next:
            self._progress(at)

    def _progress(self, at: str) -> None:
        """The newest figures, unless they were told."""
        if self.watched.figures and self.watched.figures is not self._told:
            self._told = self.watched.figures
            self._next = self._clock() + LINE_EVERY
            console.say(f"{at}  {tables.progress_line(self._told)}")

    def connection(self, trouble: str | None) -> None:
        """Say once that the stream is gone, and once that it is back."""
        if trouble is not None and not self._lost:
            console.note(f"Connection lost ({trouble}); trying again. The job goes on.")
        elif trouble is None and self._lost:
            console.note("Connected again.")
        self._lost = trouble is not None


class LiveView(_View):
    """A bar with the figures under it, and what happened above it."""

    def __init__(self, job_id: str, out: Console) -> None:
        super().__init__(job_id)
        self._trouble: str | None = None
        self._live = Live(
            console=out, get_renderable=self.render, refresh_per_second=REFRESHES, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def event(self, event: Event) -> None:
        """Take it in; the display refreshes by itself."""
        text = self.watched.apply(event)
        if text:
            at = units.local(event["at"], date=False)
            self._live.console.print(f"{at}  {text}")

    def connection(self, trouble: str | None) -> None:
        """Show that the stream is gone for as long as it is."""
        self._trouble = trouble

    def render(self) -> RenderableType:
        """The two lines."""
        figures = self.watched.figures
        step, total = figures.get("current_step"), figures.get("total_steps")
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, justify="right")
        bar.add_row(
            Text(self.watched.job_id, style="bold"),
            ProgressBar(total=float(total or 1), completed=float(step or 0), pulse=total is None),
            Text(_count(step, total, figures)),
        )
        return Group(bar, self._second_line())

    def _second_line(self) -> Text:
        if self._trouble is not None:
            return _cut(Text(f"connection lost; the job goes on; trying again ({self._trouble})", "yellow"))
        state = self.watched.state
        line = Text().append(tables.state(state.value) if state is not None else Text("…"))
        if self.watched.phase:
            line.append(f" · {self.watched.phase}")
        for label, name in tables.FIGURES:
            value = self.watched.figures.get(name)
            if value is not None:
                line.append(f"  {label} ", style="dim").append(units.figure(value), style="bold")
        return _cut(line)


def _words(phase: Json) -> str:
    return str(phase or "").replace("_", " ")


def _cut(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _count(step: int | None, total: int | None, figures: dict[str, Json]) -> str:
    if step is None:
        return ""
    if not total:
        return str(step)
    eta = figures.get("eta_seconds")
    left = "" if eta is None else f" {units.clock(eta)}"
    return f"{100 * step / total:.0f}% {step}/{total}{left}"


def choose(job_id: str, *, as_json: bool) -> View:
    """The view that fits stdout."""
    if as_json:
        return JsonView(job_id)
    out = console.stdout()
    live = out.is_terminal and not out.is_dumb_terminal
    return LiveView(job_id, out) if live else LineView(job_id)
