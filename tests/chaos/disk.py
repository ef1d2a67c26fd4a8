"""A small disk of its own for a daemon's state, that can be filled to the last byte and freed."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.server import Server

BLOCK = 1 << 16


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
        self._filler = place / ".filler"
        self._megabytes = megabytes

    @staticmethod
    def is_possible() -> bool:
        """Whether this process may mount."""
        return (
            os.geteuid() == 0
            and subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode
            == 0
        )

    def __enter__(self) -> Self:
        options = f"size={self._megabytes}m,mode=0750"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", self._place], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.free()
        subprocess.run(["umount", "--lazy", self._place], check=True)

    def fill(self) -> None:
        """Leave no byte."""
        self.fills += 1
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            size = BLOCK
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    size //= 2

    def ask(self, server: Server) -> None:
        """Ask for a job while there is no room, which is to be refused."""
        status, answer = server.request("POST", "/v1/jobs", {"kind": "quick", "params": {"steps": 1}})
        self.refused += status == 507 and answer["error"]["code"] == "disk_full"

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)
