from __future__ import annotations

import pytest
from pydantic import TypeAdapter

TypeAdapter(
    int
)  # pydantic looks for its plugins on disk once a process; in a daemon long before the loop runs


@pytest.fixture(autouse=True)
def not_blocked(no_blocking: None) -> None:
    """Nothing here blocks the event loop."""
