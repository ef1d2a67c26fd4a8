"""Whether what is imported is still what lies on the disk. Standard library only; some milliseconds a look."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

_Stamp = tuple[int, int, int]  # modification time, size, inode
_DISTRIBUTION: Final = (".dist-info", ".egg-info", ".pth", ".egg-link")


class ImportedFiles:
    """The files of all modules that are imported, and the distributions beside them, as they were when it was made.

    ``since``: when the imports began, in nanoseconds since the epoch.
    """

    def __init__(self, since: int) -> None:
        self._modules = _modules()
        self._distributions = _distributions()
        self._since, self._made = since, time.time_ns()

    def changed(self) -> str | None:
        """A file for which a new process would import something else; ``None`` if there is none."""
        for path, stamp in self._modules.items():
            if self._is_torn(stamp) or _stamp(path) != stamp:
                return path
        return min(_distributions() ^ self._distributions, default=None)

    def _is_torn(self, stamp: _Stamp | None) -> bool:
        """Whether a file was written meanwhile, and may have been imported before. One from the future tells nothing."""
        return stamp is not None and self._since < stamp[0] <= self._made


def _modules() -> dict[str, _Stamp | None]:
    files = (getattr(module, "__file__", None) for module in tuple(sys.modules.values()))
    # torch makes modules whose file is a bare name
    return {file: _stamp(file) for file in files if isinstance(file, str) and file.startswith("/")}


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - thousands of them
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _distributions() -> frozenset[str]:
    found: set[str] = set()
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - see above
        except OSError:  # an archive, or nothing
            continue
        found.update(f"{folder}/{name}" for name in names if name.endswith(_DISTRIBUTION))
    return frozenset(found)
