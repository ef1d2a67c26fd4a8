"""A job kind for tests of the machinery: it does nothing, and fails in whatever way it is told to.

Tests register it themselves; it is no entry point. Nothing here needs torch.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from finetuned_sdk import phases
from finetuned_sdk.context import AuditReport, WorkerContext
from finetuned_sdk.errors import BadDatasetError, JobError, RefusedError, RowProblem
from finetuned_sdk.hooks import hookimpl
from finetuned_sdk.kinds import Estimate, Host, JobKind, Resources
from finetuned_sdk.registry import Registry


class FakeParams(BaseModel):
    """What a fake job does. Steps count from 1; times are seconds."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="A model reference that is looked up and otherwise ignored.")
    dataset: str | None = Field(None, description="A file, a folder or a hub id; it is not read.")
    steps: int = Field(3, ge=0, description="How many steps to do.")
    step_seconds: float = Field(0.0, ge=0, description="How long a step takes.")
    fail_at: int | None = Field(None, description="The step that raises an error worth retrying.")
    refuse_at: int | None = Field(None, description="The step that raises an error not worth retrying.")
    crash_at: int | None = Field(None, description="The step that ends with a signal.")
    crash_signal: int = Field(signal.SIGKILL, description="The signal of crash_at.")
    hang_at: int | None = Field(
        None, description="The step that hangs until it is asked to stop; for ever with ignore_sigterm."
    )
    seize_at: int | None = Field(
        None,
        description="The step whose native code holds the interpreter for ever: no thread runs beside it.",
    )
    loading_seconds: float = Field(0.0, ge=0, description="Time before the first step, loading.")
    evaluate_at: int | None = Field(None, description="The step after which it evaluates.")
    evaluation_seconds: float = Field(0.0, ge=0, description="How long the evaluation takes.")
    saving_seconds: float = Field(0.0, ge=0, description="How long a checkpoint takes.")
    validation_seconds: float = Field(0.0, ge=0, description="How long validation takes, without a word.")
    fail_attempts: int | None = Field(
        None, description="How many attempts the failures happen in; all if not set."
    )
    exhaust_memory_at: int | None = Field(None, description="The step that raises MemoryError.")
    checkpoint_every: int | None = Field(None, ge=1, description="Steps between two checkpoints.")
    checkpoint_bytes: int = Field(64, ge=0, description="Size of a checkpoint's file.")
    artifact_bytes: int | None = Field(64, ge=0, description="Size of the artifact; none if not set.")
    register_as: str | None = Field(None, description="The name under which the artifact becomes a model.")
    spawn_children: int = Field(0, ge=0, description="Children that sleep, each with a child of its own.")
    ignore_sigterm: bool = Field(
        False, description="Whether worker and children ignore SIGTERM and stop requests."
    )
    output_lines: int = Field(0, ge=0, description="Numbered lines printed at each step.")
    memory_bytes: int = Field(0, ge=0, description="Memory to hold while it runs.")
    exit_code: int | None = Field(None, description="Exit at the end with this code and without a result.")
    result: dict[str, Any] = Field(default_factory=dict, description="Fields of the result.")
    devices: int = Field(1, ge=0, description="Devices that the job needs.")
    bad_rows: int = Field(0, ge=0, description="Rows that validation complains about.")
    tell: list[str] = Field(
        default_factory=list, description="Secrets of the job to tell in its output and in what it reports."
    )
    refused: bool = Field(False, description="Whether submission is refused.")


def check(params: FakeParams, host: Host) -> None:  # noqa: ARG001 - the signature is the contract's
    """Refuse the job if it says so."""
    if params.refused:
        raise RefusedError("This job asked to be refused; leave out 'refused'.", param="refused")


def resources(params: FakeParams, host: Host) -> Resources:  # noqa: ARG001 - the signature is the contract's
    """As many devices as the job says."""
    return Resources(devices=params.devices)


def estimate(params: FakeParams, host: Host) -> Estimate:  # noqa: ARG001 - the signature is the contract's
    """The time of its steps and the memory it holds."""
    return Estimate(duration_s=params.steps * params.step_seconds, host_bytes=params.memory_bytes)


def reduce_memory(params: FakeParams) -> dict[str, Any] | None:
    """Half the memory that it holds; nothing when there is none to halve."""
    return {"memory_bytes": params.memory_bytes // 2} if params.memory_bytes > 1 else None


FAKE = JobKind(
    name="fake",
    summary="Does nothing, in whatever way a test wants it.",
    params=FakeParams,
    entry="finetuned_sdk.fake:run",
    validator="finetuned_sdk.fake:validate",
    check=check,
    resources=resources,
    estimate=estimate,
    model_params=("model",),
    dataset_params=("dataset",),
    path_params=("dataset",),
    reduce_memory=reduce_memory,
)


@hookimpl
def finetuned_register(register: Registry) -> None:
    """Declare the kind; a test registers this module as a plugin."""
    register.job_kind(FAKE)


def validate(ctx: WorkerContext, params: FakeParams) -> None:
    """Complain about as many rows as the job says, or report an audit."""
    time.sleep(params.validation_seconds)
    if params.bad_rows:
        problems = [RowProblem(row, "a bad row was asked for") for row in range(1, params.bad_rows + 1)]
        raise BadDatasetError("fake.jsonl", problems, remedy="Lower bad_rows.")
    ctx.audit(AuditReport(dataset="fake.jsonl", format="fake", rows=params.steps))


def run(ctx: WorkerContext, params: FakeParams) -> None:
    """Do the steps; go on after the one of the checkpoint to resume from."""
    held = _held(params.memory_bytes)
    if params.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(params.spawn_children):
        _spawn(ignore_sigterm=params.ignore_sigterm)
    if params.loading_seconds:
        ctx.phase(phases.LOADING_MODEL)
        time.sleep(params.loading_seconds)
    ctx.phase(phases.TRAINING)
    _tell(ctx, params)
    first = 1 if ctx.resume_from is None else _resumed_step(ctx) + 1
    failing = params.fail_attempts is None or ctx.attempt <= params.fail_attempts
    for step in range(first, params.steps + 1):
        for line in range(params.output_lines):
            print(f"step {step} line {line}")  # noqa: T201 - output is what the test wants
        time.sleep(params.step_seconds)
        if failing:
            _fail(ctx, params, step)
        ctx.progress(current_step=step, total_steps=params.steps, loss=1.0 / step, final=step == params.steps)
        if step == params.evaluate_at:
            _spend(ctx, phases.EVALUATING, params.evaluation_seconds)
        due = bool(params.checkpoint_every) and step % (params.checkpoint_every or 1) == 0
        stop = None if params.ignore_sigterm else ctx.stop_requested
        if due or ctx.checkpoint_requested or (stop is not None and stop.checkpoint):
            _checkpoint(ctx, params, step)
        if stop is not None:
            return
    if params.artifact_bytes is not None:
        _publish(ctx, params)
    ctx.result(train_loss=1.0 / max(params.steps, 1), first_step=first, held_bytes=len(held), **params.result)
    if params.exit_code is not None:
        os._exit(params.exit_code)


def _held(count: int) -> bytearray:
    """Memory that is really taken: pages that nobody wrote to are not."""
    held = bytearray(count)
    held[::4096] = b"\1" * len(held[::4096])
    return held


def _tell(ctx: WorkerContext, params: FakeParams) -> None:
    """Give the secrets away, as a careless library might: whole, in two pieces, and as facts."""
    for secret in map(ctx.secret, params.tell):
        print(f"the secret is {secret}")  # noqa: T201 - output is what the test wants
        for piece in (secret[:5], secret[5:]):
            sys.stderr.write(piece)
            sys.stderr.flush()
        ctx.phase(f"telling {secret}")
        ctx.advice("tell", f"do not tell {secret}")
        ctx.result(told=[secret])


def _fail(ctx: WorkerContext, params: FakeParams, step: int) -> None:
    if step == params.fail_at:
        raise RuntimeError(
            f"failed at step {step}, as asked {' '.join(map(ctx.secret, params.tell))}".strip()
        )
    if step == params.refuse_at:
        raise JobError(f"Refused at step {step}, as asked; leave out refuse_at.", code="fake_refused")
    if step == params.exhaust_memory_at:
        raise MemoryError
    if step == params.crash_at:
        os.kill(os.getpid(), params.crash_signal)
        time.sleep(60)  # a signal that is handled or ignored leaves the worker hanging
    if step == params.hang_at:
        while params.ignore_sigterm or ctx.stop_requested is None:
            time.sleep(0.01)
    if step == params.seize_at:
        while True:
            ctypes.PyDLL(None).sleep(3600)  # PyDLL, unlike CDLL, keeps the interpreter's lock


def _spend(ctx: WorkerContext, phase: str, seconds: float) -> None:
    """Be in a phase for a while, and silent."""
    ctx.phase(phase)
    time.sleep(seconds)
    ctx.phase(phases.TRAINING)


def _checkpoint(ctx: WorkerContext, params: FakeParams, step: int) -> None:
    if params.saving_seconds:
        _spend(ctx, phases.SAVING, params.saving_seconds)
    directory = ctx.work_dir / f"tmp-{step}"
    directory.mkdir()
    (directory / "state.json").write_text(json.dumps({"step": step}), encoding="utf-8")
    (directory / "weights.bin").write_bytes(b"\0" * params.checkpoint_bytes)
    ctx.checkpoint(directory, step=step, metrics={"loss": 1.0 / step})


def _publish(ctx: WorkerContext, params: FakeParams) -> None:
    adapter = ctx.artifact_dir / "adapter"
    adapter.mkdir()
    (adapter / "weights.bin").write_bytes(b"\1" * (params.artifact_bytes or 0))
    ctx.artifact(adapter, kind="adapter")
    if params.register_as is not None:
        ctx.model(adapter, name=params.register_as, base=params.model, kind="adapter")


def _resumed_step(ctx: WorkerContext) -> int:
    assert ctx.resume_from is not None
    state = json.loads((ctx.resume_from / "state.json").read_text(encoding="utf-8"))
    return int(state["step"])


def _spawn(*, ignore_sigterm: bool) -> None:
    """A child in a session of its own, with a child of its own; both sleep for an hour."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if ignore_sigterm else ""
    sleep = f"import signal, time; {ignore} time.sleep(3600)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); {sleep}"
    subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, start_new_session=True)
