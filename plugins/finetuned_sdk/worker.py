"""The worker: runs one attempt's work in a process of its own. ``python -m finetuned_sdk.worker BUNDLE [FD]``.

FD is a memory file with the secrets that the job names.

It ends with exit code 0 and a result fact; with 1 and an error fact; or with ``STOPPED_EXIT_CODE`` when the
work returned because it was asked to stop.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, Final

from finetuned_sdk import SDK_VERSION, checkpoints, phases, secrets, versions
from finetuned_sdk.bundle import (
    RUNNER_VARIABLE,
    STOPPED_EXIT_CODE,
    Bundle,
    BundleError,
    Spec,
)
from finetuned_sdk.entries import load_entry, validated
from finetuned_sdk.errors import JobError
from finetuned_sdk.peak_memory import PeakMemory
from finetuned_sdk.spool import SpoolWriter
from finetuned_sdk.worker_context import Context
from finetuned_sdk.worker_failures import describe
from finetuned_sdk.worker_limits import limit_device_memory
from finetuned_sdk.worker_pulse import Pulse

POLL_INTERVAL: Final = 0.5  # seconds between two looks at control.json
MEMORY_POLLS: Final = 4  # of these looks for each look at the children's memory
_PR_SET_PDEATHSIG: Final = 1

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the attempt of the bundle named on the command line; the exit code."""
    path, *memory = sys.argv[1:] if arguments is None else arguments
    values = secrets.from_descriptor(int(memory[0])) if memory else {}
    die_with_runner()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # stderr is the attempt's output.log
    bundle = Bundle(path)
    pulse = Pulse(bundle.heartbeat_path)
    pulse.beat()
    secrets.export(values)
    spool = SpoolWriter(bundle.spool_path, secrets=values.values())
    done = threading.Event()
    try:
        return _run(bundle, spool, pulse, values, done)
    finally:
        pulse.note(phase=phases.SAVING)
        spool.close(waiting=pulse.note)  # for room on the disk, however long: that is no stall
        done.set()
        pulse.close()


def die_with_runner() -> None:
    """Have the kernel kill this process when its runner dies, so that it can never outlive it."""
    runner = os.environ.get(RUNNER_VARIABLE)
    if runner is None:  # started by hand
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(runner):  # it died before the request was made
        os.kill(os.getpid(), signal.SIGKILL)


def _run(
    bundle: Bundle, spool: SpoolWriter, pulse: Pulse, values: Mapping[str, str], done: threading.Event
) -> int:
    spool.append("hello", {"pid": os.getpid(), "python": platform.python_version(), "host": platform.node()})
    try:
        spec = bundle.read_spec()
    except BundleError as error:
        spool.append("error", {"code": error.code, "message": str(error), "retryable": False})
        return 1
    if (misfit := versions.problem(spec.sdk, SDK_VERSION)) is not None:
        spool.append("error", {"code": "sdk_mismatch", "message": misfit, "retryable": False})
        return 1
    ctx = Context(bundle, spec, spool, secrets=values, pulse=pulse)
    signal.signal(signal.SIGTERM, lambda *_: ctx.request_stop("terminated", checkpoint=False))
    ended = threading.Event()
    memory = PeakMemory()
    watch = threading.Thread(target=_watch_control, args=(bundle, ctx, spool, memory, ended), daemon=True)
    watch.start()
    threading.Thread(target=_beat, args=(pulse, spec.heartbeat_s, done), daemon=True).start()
    try:
        problem = _work(ctx, spec, bundle)
    finally:
        ended.set()
        watch.join()
        ctx.flush_progress()
    if problem is not None:
        spool.append("error", problem)
        return 1
    if ctx.was_stopped:
        return STOPPED_EXIT_CODE
    try:
        spool.append("result", {"values": ctx.results, "measured": memory.figures()})
    except JobError as error:  # too long
        spool.append("error", describe(error))
        return 1
    return 0


def _work(ctx: Context, spec: Spec, bundle: Bundle) -> Mapping[str, Any] | None:
    checkpoints.clear_leftovers(bundle.path)
    try:
        limit_device_memory(spec.limits.get("gpu_memory"), spec.devices)
        run = load_entry(spec.entry)
        params = validated(spec.params_model, spec.params)
        run(ctx, params)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever ends the work is a fact
        if not isinstance(error, JobError):
            traceback.print_exc()
        problem = describe(error, directory=bundle.path)
        if problem["code"] == "disk_full":  # room for this very fact, and for the next attempt
            checkpoints.clear(bundle.work.iterdir())
        return problem
    return None


def _watch_control(
    bundle: Bundle, ctx: Context, spool: SpoolWriter, memory: PeakMemory, ended: threading.Event
) -> None:
    """Look for what the daemon wants, and write what waits: a report, or facts that found the disk full."""
    counter = saved = polls = 0
    while not ended.wait(POLL_INTERVAL):
        polls += 1
        if polls % MEMORY_POLLS == 0:  # not at each: the kernel walks the children's pages
            memory.look()
        try:
            control = bundle.read_control()
        except (BundleError, OSError) as error:
            log.warning("control.json cannot be read: %s", error)
            continue
        if control.checkpoints > saved:
            saved = control.checkpoints
            ctx.request_checkpoint()
        if control.state == "stop" and control.counter > counter:
            counter = control.counter
            ctx.request_stop(control.reason, checkpoint=control.checkpoint)
        ctx.flush_due_progress()
        spool.flush()


def _beat(pulse: Pulse, interval: float, done: threading.Event) -> None:
    """Show that the process lives, whatever the work does; apart from all that may wait for a disk."""
    while not done.wait(interval):
        pulse.beat()


if __name__ == "__main__":
    sys.exit(main())
