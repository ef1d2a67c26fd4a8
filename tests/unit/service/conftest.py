from __future__ import annotations

from pathlib import Path

import pytest

from finetuned.service.layout import Layout, Scope


@pytest.fixture
def image(tmp_path: Path) -> Layout:
    """The system's layout, in an image."""
    return Layout(Scope.SYSTEM, Path("/root"), Path("/var/lib/finetuned"), tmp_path)


@pytest.fixture
def system() -> Layout:
    """The running system's layout. Nothing may be done with it."""
    return Layout(Scope.SYSTEM, Path("/root"), Path("/var/lib/finetuned"))


@pytest.fixture
def own() -> Layout:
    """A user's layout."""
    return Layout(Scope.USER, Path("/home/ann"), Path("/home/ann/.local/state/finetuned"))
