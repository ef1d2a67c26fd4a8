"""A small disk of its own for a daemon's state, that can be filled to the last byte and freed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import small_disk
from tests.chaos.server import Server

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def enter_namespace(command: list[str]) -> None:
    """Run the command in a mount namespace of one's own instead, where its user may mount; return if that is not let."""
    if os.geteuid() == 0 or shutil.which("unshare") is None:
        return
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0:
        os.execvp(NAMESPACE[0], [*NAMESPACE, *command])


class Disk:
    """A tmpfs over a directory. Mounting takes root, or a mount namespace of one's own (``unshare -Urm``)."""

    def __init__(self, place: Path, megabytes: int = 64) -> None:
        self.fills = 0
        self.refused = 0
        self._place = place
        self._mount = small_disk.mounted(place, megabytes << 20)

    def __enter__(self) -> Self:
        self._mount.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mount.__exit__(kind, error, trace)

    def fill(self) -> None:
        """Leave no room."""
        self.fills += 1
        small_disk.fill(self._place)

    def ask(self, server: Server) -> None:
        """Ask for a job while there is no room, which is to be refused."""
        status, answer = server.request("POST", "/v1/jobs", {"kind": "quick", "params": {"steps": 1}})
        self.refused += status == 507 and answer["error"]["code"] == "disk_full"

    def free(self) -> None:
        """Give the room back."""
        small_disk.relieve(self._place)
