"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

# A slow machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell has what it puts into the background ignore these, which the programs of tests would inherit.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture
def no_blocking() -> Iterator[None]:
    """A blocking call of ours on the event loop fails the test."""
    with blockbuster_ctx(["finetuned", "finetuned_events"]) as blocking:
        # The writer's thread has said its last word by then; what is left of it takes microseconds.
        blocking.functions["threading.Lock.acquire"].can_block_in("finetuned_events/writer.py", "aclose")
        # A log without a file works on the event loop, in memory.
        for function in blocking.functions.values():
            function.can_block_in("finetuned_events/reader.py", "fetch")
            function.can_block_in("finetuned_events/memory.py", {"open", "submit", "_aside"})
        # Coverage's own book-keeping in measured runs.
        blocking.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        # The size of the WAL, of a file that is open and in the cache.
        blocking.functions["os.stat"].can_block_in("finetuned_events/log.py", "_size")
        yield
