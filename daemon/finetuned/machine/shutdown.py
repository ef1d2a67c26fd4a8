"""Whether the system is being shut down: then trainers will not outlive the daemon, and must save now."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

log = logging.getLogger(__name__)

BOOTED: Final = Path("/run/systemd/system")  # exists where systemd is PID 1; sd_booted(3)
PATIENCE_S: Final = 5.0
_SYSTEM: Final = ("systemctl", "is-system-running")
_USER: Final = ("systemctl", "--user", "is-system-running")


async def is_under_way(*, booted: Path = BOOTED, commands: Sequence[Sequence[str]] | None = None) -> bool:
    """Whether systemd, the system's or the user's own, is stopping. ``False`` where it is not or cannot be asked."""
    if not await anyio.Path(booted).is_dir():
        return False
    if commands is None:
        commands = (_SYSTEM, _USER) if "XDG_RUNTIME_DIR" in os.environ else (_SYSTEM,)
    for command in commands:
        if await _answer(command) == "stopping":
            return True
    return False


async def _answer(command: Sequence[str]) -> str:
    with anyio.move_on_after(PATIENCE_S):
        try:
            # Its exit code is not 0 for any state but "running".
            done = await anyio.run_process(list(command), check=False, stderr=subprocess.DEVNULL)
        except OSError as error:
            log.warning("%s cannot be asked whether the system stops: %s", command[0], error)
            return ""
        return done.stdout.decode(errors="replace").strip()
    return ""
