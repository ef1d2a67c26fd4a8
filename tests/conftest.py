"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture
def no_blocking() -> Iterator[None]:
    """A blocking call of ours on the event loop fails the test."""
    with blockbuster_ctx(["finetuned", "finetuned_events"]) as blocking:
        # The writer's thread has said its last word by then; what is left of it takes microseconds.
        blocking.functions["threading.Lock.acquire"].can_block_in("finetuned_events/writer.py", "aclose")
        # Coverage's own book-keeping in measured runs.
        blocking.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        # The size of the WAL, of a file that is open and in the cache.
        blocking.functions["os.stat"].can_block_in("finetuned_events/log.py", "_size")
        # A rebuild makes its empty scratch tables on the loop.
        for function in ("Connection.execute", "Cursor.fetchone", "Cursor.fetchall"):
            blocking.functions[f"sqlite3.{function}"].can_block_in("finetuned_events/log.py", "rebuild")
        blocking.functions["io.TextIOWrapper.read"].can_block_in("finetuned_events/log.py", "rebuild")
        yield
