"""Loader processes that end with their trainer, not with a signal to the whole group.

SIGTERM to the group asks the trainer to stop at its next step boundary. A loader process that died of it would fail
the very step at whose end the trainer means to stop.
"""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing.context import ForkContext, ForkProcess


class LoaderProcess(ForkProcess):
    """A forked process that heeds SIGTERM from its parent alone, from its first instruction on."""

    def start(self) -> None:
        """Fork with SIGTERM blocked, so that the child is born deaf to it; it waits for it in a thread."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self) -> None:
        threading.Thread(target=_heed_parent, daemon=True).start()
        super().run()


class LoaderContext(ForkContext):
    """What ``torch.utils.data.DataLoader`` makes its processes from."""

    Process = LoaderProcess


def _heed_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
