"""The zygote: a process that has the imports of trainers and forks runners. ``python -m finetuned.attempts.zygote``.

``FD IDLE_S MEMORY``: the socket to its daemon, after how many seconds without a request it ends, and how many bytes it
may hold. It trains nothing and uses no device, so that each fork begins as a process that has only imported. It ends
when its daemon is gone; the runners do not.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from finetuned.attempts import runner, warm_channel, warm_checks
from finetuned.attempts.warm_files import ImportedFiles
from finetuned.attempts.warm_fork import ForkedWorker, open_descriptors, reset_signals
from finetuned.attempts.warm_image import ProcessImage
from finetuned_sdk.bundle import ATTEMPT_VARIABLE

OOM_SCORE_ADJ: Final = 500  # when memory runs out, better this than work
HIDDEN: Final = "bitsandbytes"  # it initialises CUDA when it is imported
WORKER: Final = "finetuned_sdk.worker"


def main(arguments: list[str] | None = None) -> int:
    """Serve the daemon at the other end of a socket until it is gone, or has asked for nothing for long."""
    descriptor, idle_s, memory, *_padding = sys.argv[1:] if arguments is None else arguments
    image = ProcessImage(ATTEMPT_VARIABLE)
    sys.modules[HIDDEN] = None  # type: ignore[assignment] # what Python takes for "cannot be imported"
    _set_oom_score(OOM_SCORE_ADJ)
    with socket.socket(fileno=int(descriptor)) as daemon:
        daemon.set_inheritable(False)
        Zygote(daemon, image, idle_s=float(idle_s), memory=int(memory)).serve()
    return 0


class Zygote:
    """Imports what it is told to, and forks a runner for each launch."""

    def __init__(self, daemon: socket.socket, image: ProcessImage, *, idle_s: float, memory: int) -> None:
        self._daemon = daemon
        self._image = image
        self._idle_s = idle_s
        self._memory = memory
        self._began = time.time_ns()
        self._imported: set[str] = set()
        self._files: ImportedFiles | None = None
        self._ended, self._notice = os.pipe()  # a runner did
        for end in (self._ended, self._notice):
            os.set_blocking(end, False)

    def serve(self) -> None:
        """Answer requests. Returns when there will be none."""
        signal.set_wakeup_fd(self._notice, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while self._wait():
            request, descriptors = warm_channel.receive(self._daemon)
            if request is None:
                return
            try:
                is_sound = self._answer(request, descriptors)
            except OSError:  # nobody hears the answer
                return
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if not is_sound:
                return

    def _wait(self) -> bool:
        """Wait for a request and collect runners that end; whether one came in time."""
        until = time.monotonic() + self._idle_s
        while True:
            left = max(0.0, until - time.monotonic())
            ready, _, _ = select.select([self._daemon.fileno(), self._ended], [], [], left)
            if self._ended in ready:
                os.read(self._ended, 4096)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if self._daemon.fileno() in ready:
                return True
            if not left:
                return False

    def _answer(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> bool:
        """Do what is asked for; whether another request can be served."""
        changed = None if self._files is None else self._files.changed()
        if changed is not None:
            warm_channel.send(self._daemon, {"stale": changed})
            return False
        problem = self._import(request["modules"])
        if problem is not None:
            warm_channel.send(self._daemon, {"problem": problem})
            return False
        launch = request.get("launch")
        if launch is None:
            warm_channel.send(self._daemon, {"held": warm_checks.held_bytes()})
        else:
            self._launch(launch, descriptors)
        return True

    def _import(self, modules: Sequence[str]) -> str | None:
        """Import what is not imported yet; why no fork can be made of it."""
        missing = [name for name in (WORKER, *modules) if name not in self._imported]
        if not missing:
            return None
        for name in missing:
            try:
                importlib.import_module(name)
            except BaseException as error:  # noqa: BLE001 - the worker will say more of it
                return f"{name} cannot be imported: {type(error).__name__}: {error}"
        self._imported.update(missing)
        self._files = ImportedFiles(self._began)
        gc.collect()
        gc.freeze()  # or collecting in a fork would write to, and so copy, every page with an object
        return warm_checks.problem(self._memory)

    def _launch(self, launch: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_runner(launch, descriptors)
        process = os.pidfd_open(pid)  # its own child, not collected yet: it is this one
        try:
            warm_channel.send(self._daemon, {"pid": pid}, [process])
        finally:
            os.close(process)

    def _become_runner(self, launch: Mapping[str, Any], descriptors: Sequence[int]) -> NoReturn:
        code = 1
        try:
            os.setsid()
            reset_signals()
            _set_oom_score(int(launch["oom_score_adj"]))
            for descriptor in (self._daemon.detach(), self._ended, self._notice):
                os.close(descriptor)
            kept = open_descriptors().difference(descriptors)
            arguments = [str(launch["bundle"]), *map(str, descriptors)]
            os.environ.clear()
            os.environ.update(launch["environment"])
            command = [launch["interpreter"], "-P", "-m", "finetuned.attempts.runner", *arguments]
            self._image.show(command, "")
            code = runner.main(arguments, start_worker=ForkedWorker(self._image, kept))
        finally:
            # Not the interpreter's end: what imports have registered for it is the worker's.
            os._exit(code)


def _set_oom_score(value: int) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(str(value))


if __name__ == "__main__":
    sys.exit(main())
