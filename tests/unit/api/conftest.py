from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def not_blocked(no_blocking: None) -> None:
    """Nothing here blocks the event loop."""
