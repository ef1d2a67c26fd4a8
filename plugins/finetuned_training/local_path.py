"""The path that a parameter names."""

from __future__ import annotations

from pathlib import Path


def local_path(name: str) -> Path:
    """The path with ``~`` resolved; as it stands, where nothing lies, if there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)
