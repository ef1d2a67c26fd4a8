"""What ``/proc`` tells of this process, rewritten in place: a process that was forked carries its parent's.

The kernel reads the command line and the environment where it put them when the program was executed. Both are memory
of the process itself, and whoever made room in them beforehand can write there. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOM: Final = 256  # bytes that are kept for a value, and for a command line that is longer
PADDING: Final = " " * ROOM
_ARGUMENTS_START: Final = 45  # fields of /proc/PID/stat after the command, see proc(5)
_ARGUMENTS_END: Final = 46
_ENVIRONMENT_START: Final = 47


class ProcessImage:
    """The command line and one variable of this process and of its forks. ``variable`` was given ``PADDING``."""

    def __init__(self, variable: str) -> None:
        fields = (
            Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        self._command = int(fields[_ARGUMENTS_START])
        self._command_room = int(fields[_ARGUMENTS_END]) - self._command
        name = f"\0{variable}=".encode()
        offset = (b"\0" + Path("/proc/self/environ").read_bytes()).find(name + PADDING.encode())
        if offset < 0:
            raise ValueError(f"{variable} was given no room in the environment")
        self._value = int(fields[_ENVIRONMENT_START]) + offset + len(name) - 1

    def show(self, command: Sequence[str], value: str) -> None:
        """Have ``/proc`` show a command line, cut if it is long, and a value. Raises ``ValueError`` for a long value."""
        encoded = os.fsencode(value)
        if len(encoded) > ROOM:
            raise ValueError(f"{value!r} is longer than {ROOM} bytes")
        line = b"\0".join(map(os.fsencode, command))
        ctypes.memmove(self._value, encoded.ljust(ROOM, b"\0"), ROOM)
        # The last byte stays zero: for any other the kernel would go on reading in the environment.
        room = self._command_room
        ctypes.memmove(self._command, line[: room - 1].ljust(room, b"\0"), room)
