"""The demo's steps: start a daemon, import the model, train, and tell what came of it."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import anyio

from finetuned.client import Client
from finetuned.client.endpoint import Endpoint
from finetuned.client.errors import UnreachableError
from finetuned.demo import process
from finetuned.domain.errors import FinetunedError, StartError, UnavailableError
from finetuned.wire import Job

Json = Any

DATA: Final = Path(__file__).parent / "data"
MODEL_NAME: Final = "smollm2"
START_TIMEOUT: Final = 60.0  # seconds


class DemoError(FinetunedError):
    """A job of the demo did not succeed."""

    code = "demo_failed"
    exit_code = 1


class Narrator(Protocol):
    """What the demo tells, step by step."""

    def step(self, text: str) -> None:
        """A new step begins."""

    async def watch(self, daemon: Client, job: Job) -> Job:
        """Show a job until it has ended; the ended job."""

    async def result(self, daemon: Client, job: Job) -> None:
        """Figures, answers and the timeline of the trained job."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The trained job, where its files are (with ``keep``), and how long it all took, in seconds."""

    job: Job
    state_dir: Path
    seconds: float


def walk(model_file: Path, narrator: Narrator, *, keep: bool = False) -> Outcome:
    """Run the whole demo; nothing is left behind but, with ``keep``, its directory.

    Raises ``StartError`` if the daemon does not start and ``DemoError`` if a job fails.
    """
    started = time.monotonic()
    with process.interruptible(), process.scratch(keep=keep) as directory:
        narrator.step(f"Starting a daemon in {directory}")
        with process.daemon(directory) as daemon:
            job = anyio.run(_steps, directory, daemon, model_file.absolute(), narrator)
    return Outcome(job, directory, time.monotonic() - started)


async def _steps(
    directory: Path, process_: subprocess.Popen[bytes], model_file: Path, narrator: Narrator
) -> Job:
    async with Client(Endpoint(socket=directory / process.SOCKET_NAME)) as daemon:
        await _ready(daemon, process_, directory)

        narrator.step(f"Importing {model_file.name} as the model {MODEL_NAME!r}")
        imported = await daemon.submit("import-gguf", {"file": str(model_file), "name": MODEL_NAME})
        _succeeded(await narrator.watch(daemon, imported))

        narrator.step("Training it on bakery orders, and asking it about held-out orders before and after")
        trained = await narrator.watch(daemon, await daemon.submit("sft", parameters(), name="bakery orders"))
        _succeeded(trained)
        await narrator.result(daemon, trained)
        return trained


async def _ready(daemon: Client, child: subprocess.Popen[bytes], directory: Path) -> None:
    with anyio.move_on_after(START_TIMEOUT):
        while True:
            process.check(child, directory)
            try:
                await daemon.ready()
            except (UnreachableError, UnavailableError):
                await anyio.sleep(0.05)
            else:
                return
    raise StartError(
        f"The demo's daemon was not ready after {START_TIMEOUT:.0f} s; this machine is very busy."
    )


def parameters() -> dict[str, Json]:
    """The parameters of the demo's training job: the recipe, the model and the rows."""
    recipe = json.loads((DATA / "recipe.json").read_text(encoding="utf-8"))
    heldout = str(DATA / "orders-heldout.jsonl")
    return {
        "model": MODEL_NAME,
        "dataset": str(DATA / "orders-train.jsonl"),
        **recipe["sft"],
        "callbacks": [{"name": "validation", "params": {"dataset": heldout, **recipe["validation"]}}],
    }


def _succeeded(job: Job) -> None:
    if job["state"] != "succeeded":
        reason = job["error"]["message"] if job["error"] else "no reason"
        raise DemoError(f"The job {job['name'] or job['kind']} {job['state']}: {reason}")
