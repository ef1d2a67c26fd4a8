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

from finetuned_sdk import secrets
from finetuned_sdk.bundle import (
    RUNNER_VARIABLE,
    STOPPED_EXIT_CODE,
    Bundle,
    BundleError,
    Spec,
)
from finetuned_sdk.errors import BadDatasetError, JobError, RefusedError
from finetuned_sdk.fields import NAME_LIMIT, short
from finetuned_sdk.spool import SpoolWriter
from finetuned_sdk.worker_context import Context, load_entry, validated

LINE_LIMIT: Final = 3500  # bytes of an error's first line; with what is said around it about 4 KiB
REASON_LIMIT: Final = 500  # bytes of what is wrong with a row
POLL_INTERVAL: Final = 0.5  # seconds between two looks at control.json
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
    secrets.export(values)
    spool = SpoolWriter(bundle.spool_path, secrets=values.values())
    try:
        return _run(bundle, spool, values)
    finally:
        spool.close()


def die_with_runner() -> None:
    """Have the kernel kill this process when its runner dies, so that it can never outlive it."""
    runner = os.environ.get(RUNNER_VARIABLE)
    if runner is None:  # started by hand
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(runner):  # it died before the request was made
        os.kill(os.getpid(), signal.SIGKILL)


def _run(bundle: Bundle, spool: SpoolWriter, values: Mapping[str, str]) -> int:
    spool.append("hello", {"pid": os.getpid(), "python": platform.python_version(), "host": platform.node()})
    try:
        spec = bundle.read_spec()
    except BundleError as error:
        spool.append("error", {"code": error.code, "message": str(error), "retryable": False})
        return 1
    ctx = Context(bundle, spec, spool, secrets=values)
    signal.signal(signal.SIGTERM, lambda *_: ctx.request_stop("terminated", checkpoint=False))
    ended = threading.Event()
    watch = threading.Thread(target=_watch_control, args=(bundle, ctx, spool, ended), daemon=True)
    watch.start()
    try:
        problem = _work(ctx, spec)
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
        spool.append("result", {"values": ctx.results})
    except JobError as error:  # too long
        spool.append("error", describe(error))
        return 1
    return 0


def _work(ctx: Context, spec: Spec) -> Mapping[str, Any] | None:
    try:
        run = load_entry(spec.entry)
        params = validated(spec.params_model, spec.params)
        run(ctx, params)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever ends the work is a fact
        if not isinstance(error, JobError):
            traceback.print_exc()
        return describe(error)
    return None


def describe(error: BaseException) -> dict[str, Any]:
    """The data of an error fact: a stable code, a sentence for the user, and whether trying again may help.

    Texts are cut at a few KiB: an error may quote a whole file.
    """
    name = type(error).__name__
    if isinstance(error, JobError):
        return {
            "code": short(str(error.code), NAME_LIMIT),
            "message": short(str(error.message)),
            "retryable": False,
            **_details(error),
        }
    if is_out_of_memory(error):
        return {
            "code": "out_of_memory",
            "message": f"Out of memory ({name}: {_first_line(error)}). Lower per_device_train_batch_size or"
            " max_length, or raise gradient_accumulation_steps instead of the batch size.",
            "retryable": False,
        }
    if isinstance(error, ImportError):
        return {
            "code": "missing_dependency",
            "message": f"{_first_line(error)}. Install what the job kind needs into the worker's environment"
            " (for the trainers: pip install 'finetuned[train]').",
            "retryable": False,
        }
    return {
        "code": "worker_error",
        "message": f"{name}: {_first_line(error)}" if str(error) else f"{name} without a message",
        "retryable": True,
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, torch's on a GPU, or torch's allocator on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _details(error: JobError) -> dict[str, Any]:
    if isinstance(error, BadDatasetError):
        problems = [
            {"row": problem.row, "reason": short(str(problem.reason), REASON_LIMIT)}
            for problem in error.problems
        ]
        return {"path": short(str(error.path)), "problems": problems, "total": error.total}
    if isinstance(error, RefusedError):
        return {"param": None if error.param is None else short(str(error.param), NAME_LIMIT)}
    return {}


def _first_line(error: BaseException) -> str:
    return short(next(iter(str(error).strip().splitlines()), ""), LINE_LIMIT)


def _watch_control(bundle: Bundle, ctx: Context, spool: SpoolWriter, ended: threading.Event) -> None:
    """Look for what the daemon wants, and write what waits: a report, or facts that found the disk full."""
    counter = saved = 0
    while not ended.wait(POLL_INTERVAL):
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


if __name__ == "__main__":
    sys.exit(main())
