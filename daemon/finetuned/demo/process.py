"""An ephemeral daemon as a child process, in a scratch directory; both are gone at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from finetuned.attempts import identity, temporary
from finetuned.domain.errors import StartError
from finetuned_sdk.bundle import Bundle, BundleError

LOG_NAME: Final = "daemon.log"
SOCKET_NAME: Final = "finetuned.sock"
CONFIG_NAME: Final = "config.toml"
STOP_TIMEOUT: Final = 30.0  # seconds; the daemon ends its trainers within ten
ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SWEEP_TIMEOUT: Final = 10.0  # seconds


@contextlib.contextmanager
def scratch(*, keep: bool) -> Iterator[Path]:
    """A new directory with a path short enough for a socket; removed at the end unless ``keep``."""
    directory = Path(tempfile.mkdtemp(prefix="finetuned-demo-"))
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def daemon(state_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``finetuned --ephemeral`` on ``state_dir``, deaf to the user's configuration.

    At the end nothing of it or of its jobs runs, also if it was killed or hangs.
    """
    (state_dir / CONFIG_NAME).touch()
    command = [
        sys.executable, "-m", "finetuned", "--ephemeral", "--config", str(state_dir / CONFIG_NAME),
        "--state-dir", str(state_dir), "--socket", str(state_dir / SOCKET_NAME), "--listen", "",
    ]  # fmt: skip
    # The demo needs nothing from the hub, and must not wait for it where there is no network.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    held: list[int] = []
    process: subprocess.Popen[bytes] | None = None
    try:
        # A signal in the middle of Popen would lose the process that it has just made.
        with (
            _handled(lambda number, _frame: held.append(number), *ENDINGS),
            (state_dir / LOG_NAME).open("wb") as log,
        ):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                # In a session of its own, so that Ctrl-C reaches the demo alone, which then ends it in order.
                start_new_session=True,
            )
        if held:
            raise KeyboardInterrupt
        yield process
    finally:
        if process is not None:
            with _deaf():
                end(process)
                sweep(state_dir)


def end(process: subprocess.Popen[bytes], *, timeout: float = STOP_TIMEOUT) -> None:
    """Ask the daemon to stop, which takes its jobs along; kill it if it does not."""
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def sweep(state_dir: Path, *, timeout: float = SWEEP_TIMEOUT) -> None:
    """Kill what a daemon that died itself has left of its attempts: they are made to outlive it."""
    deadline = time.monotonic() + timeout
    for path in sorted((state_dir / "jobs").glob("*/attempts/*")):
        runner = None
        with contextlib.suppress(BundleError):
            runner = Bundle(path).read_runner()
        while identity.kill_leftovers(f"{path.parent.parent.name}/", runner) and time.monotonic() < deadline:
            time.sleep(0.05)
        temporary.remove(Bundle(path))


def check(process: subprocess.Popen[bytes], state_dir: Path) -> None:
    """Raise ``StartError`` with the daemon's own words if it has ended."""
    if process.poll() is None:
        return
    said = (state_dir / LOG_NAME).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise StartError(
        f"The demo's daemon ended ({process.returncode}): {said[-1] if said else 'without a word'}"
    )


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a closed terminal and ``kill`` do what Ctrl-C does, whoever handles that by then: an event loop ends its task.

    What is raised once it was asked for, since it struck in the midst of something, counts as ``KeyboardInterrupt``, too.
    """
    asked: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        signal.raise_signal(signal.SIGINT)

    others = [number for number in ENDINGS if number is not signal.SIGINT]
    try:
        with _handled(signal.default_int_handler, signal.SIGINT), _handled(interrupt, *others):
            yield
    except Exception as error:
        if asked:
            raise KeyboardInterrupt from error
        raise


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """No second Ctrl-C may break off the tidying up."""
    with _handled(signal.SIG_IGN, *ENDINGS):
        yield


@contextlib.contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], Any] | signal.Handlers, *numbers: int
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
