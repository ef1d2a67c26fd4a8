"""Starts a worker by a fork of its runner, where the runner is itself a fork of a process with all imports.

What the worker is then differs in nothing that it or others can see from one that was started as a program: process
group, descriptors, signals, environment, command line, seeds and number of threads are made what they would be.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from finetuned.attempts.warm_image import ProcessImage
from finetuned_sdk.bundle import ATTEMPT_VARIABLE

#: Python ignores them from its start on
_IGNORED: Final = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
_CORES: Final = Path("/sys/devices/system/cpu")


class ForkedWorker:
    """``finetuned.attempts.runner.StartWorker`` by fork. ``kept``: descriptors that imports have opened."""

    def __init__(self, image: ProcessImage, kept: Collection[int]) -> None:
        self._image = image
        self._kept = frozenset(kept)

    def __call__(
        self,
        interpreter: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        output: int,
        memory: int | None,
    ) -> int:
        """The process id of the worker. Raises ``OSError`` if there can be no more processes."""
        # Held until the child has its own handlers: a signal of before would be handled as the runner's.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                handed = [*arguments, *(() if memory is None else (str(memory),))]
                self._become_worker(interpreter, handed, environment, output, memory)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return pid

    def _become_worker(
        self,
        interpreter: str,
        arguments: list[str],
        environment: Mapping[str, str],
        output: int,
        memory: int | None,
    ) -> NoReturn:
        try:
            os.setpgid(0, 0)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            for each in open_descriptors() - {0, 1, 2, memory} - self._kept:
                os.close(each)
            os.environ.clear()
            os.environ.update(environment)
            command = [interpreter, "-P", "-m", "finetuned_sdk.worker", *arguments]
            self._image.show(command, environment[ATTEMPT_VARIABLE])
            reset_signals()
        except BaseException:  # noqa: BLE001 - nothing of the runner's may run here
            traceback.print_exc()
            os._exit(1)
        finish(lambda: _work(arguments))


def reset_signals() -> None:
    """Handle signals as a Python program does that was just started, and let through those that waited."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - _IGNORED - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in {signal.SIG_DFL, None}:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def open_descriptors() -> set[int]:
    """All descriptors of this process."""
    listed = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - one of them the listing's own
    return {number for number in listed if _is_open(number)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def finish(main: Callable[[], int]) -> NoReturn:
    """Run a program's main function and end this process as the interpreter would end that program."""
    code = 1
    try:
        try:
            code = main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:  # noqa: BLE001 - it is the last to see it
            traceback.print_exc()
        threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as multiprocessing does in its forks
        atexit._run_exitfuncs()  # noqa: SLF001 - likewise
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _work(arguments: list[str]) -> int:
    from finetuned_sdk import worker  # noqa: PLC0415 - a runner has no need of it

    sys.modules["__main__"] = worker  # which multiprocessing names to the processes that it spawns
    sys.argv = [str(worker.__file__), *arguments]
    sys.modules.pop("bitsandbytes", None)  # what hid it
    make_own()
    return worker.main(arguments)


def make_own() -> None:
    """Make what each process has for itself anew: seeds, the folder for temporary files, the number of threads."""
    tempfile.tempdir = None
    random.seed()
    multiprocessing.current_process().authkey = os.urandom(32)
    fingerprints: Any = sys.modules.get("datasets.fingerprint")
    if fingerprints is not None:
        fingerprints.fingerprint_rng.seed()
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.seed()  # drawn when torch is imported
        torch.set_num_threads(threads(os.environ))


def threads(environment: Mapping[str, str], cores: Path = _CORES) -> int:
    """How many threads torch would take if it were imported now: as many as it is told, else one for each core."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        told = environment.get(name, "").partition(",")[0]
        if told.isdecimal() and int(told) > 0:
            return int(told)
    usable = os.sched_getaffinity(0)
    return len({_siblings(cores / f"cpu{number}") or str(number) for number in usable})


def _siblings(core: Path) -> str | None:
    """The threads of a processor that share its core."""
    try:
        return (core / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return None
