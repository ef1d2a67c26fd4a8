"""The demo's steps: start a daemon, import the model, train in stages, and tell what came of each."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import anyio

from finetuned.client import Client
from finetuned.client.endpoint import Endpoint
from finetuned.client.errors import UnreachableError
from finetuned.demo import process, stages
from finetuned.demo.stages import MODEL_NAME, Stage
from finetuned.domain.errors import FinetunedError, StartError, UnavailableError
from finetuned.wire import Job

START_TIMEOUT: Final = 60.0  # seconds


class DemoError(FinetunedError):
    """A job of the demo did not succeed, or its figures do not show that the model learned."""

    code = "demo_failed"
    exit_code = 1


class Narrator(Protocol):
    """What the demo tells, step by step."""

    def step(self, text: str) -> None:
        """A new step begins."""

    async def watch(self, daemon: Client, job: Job) -> Job:
        """Show a job until it has ended; the ended job."""

    async def result(self, daemon: Client, stage: Stage, job: Job) -> None:
        """What came of a stage: figures, and answers if it asked for some."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The stages with their jobs, where their files are (with ``keep``), and how long it all took, in seconds."""

    trained: list[tuple[Stage, Job]]
    state_dir: Path
    seconds: float


def walk(
    model_file: Path, narrator: Narrator, *, trainings: Sequence[Stage] = stages.FIRST, keep: bool = False
) -> Outcome:
    """Run the whole demo; nothing is left behind but, with ``keep``, its directory.

    Raises ``StartError`` if the daemon does not start and ``DemoError`` if a job fails.
    """
    started = time.monotonic()
    with process.interruptible(), process.scratch(keep=keep) as directory:
        narrator.step(f"Starting a daemon in {directory}")
        with process.daemon(directory) as daemon:
            trained = anyio.run(_steps, directory, daemon, model_file.absolute(), narrator, trainings)
    return Outcome(trained, directory, time.monotonic() - started)


async def _steps(
    directory: Path,
    process_: subprocess.Popen[bytes],
    model_file: Path,
    narrator: Narrator,
    trainings: Sequence[Stage],
) -> list[tuple[Stage, Job]]:
    async with Client(Endpoint(socket=directory / process.SOCKET_NAME)) as daemon:
        await _ready(daemon, process_, directory)

        narrator.step(f"Importing {model_file.name} as the model {MODEL_NAME!r}")
        imported = await daemon.submit("import-gguf", {"file": str(model_file), "name": MODEL_NAME})
        _succeeded(await narrator.watch(daemon, imported))

        trained: list[tuple[Stage, Job]] = []
        for stage in trainings:
            narrator.step(stage.heading)
            params = stage.parameters({each.kind: job for each, job in trained})
            job = await narrator.watch(daemon, await daemon.submit(stage.kind, params, name=stage.name))
            _succeeded(job)
            await narrator.result(daemon, stage, job)
            trained.append((stage, job))
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


def _succeeded(job: Job) -> None:
    if job["state"] != "succeeded":
        reason = job["error"]["message"] if job["error"] else "no reason"
        raise DemoError(f"The job {job['name'] or job['kind']} {job['state']}: {reason}")
