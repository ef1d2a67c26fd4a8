"""Small JSON files of model directories: users write them, so they may hold anything, and the daemon reads them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MAX_BYTES = 16 << 20  # an index of a hundred thousand tensors


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. Raises ``OSError``, also for what is no regular file: a pipe would block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def read_object(path: Path) -> dict[str, Any]:
    """The object that a file holds. Raises ``OSError``, or ``ValueError`` for what is none or is too large."""
    with open_regular(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES} bytes")
    return parse_object(content, path)


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """An object of JSON. Raises ``ValueError`` for anything else, however deep it is nested."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no object")  # noqa: TRY004 - for callers it is all the same: malformed
    return value
