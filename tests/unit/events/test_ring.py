from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetuned_events import Event
from finetuned_events.ring import Ring


def event(seq: int) -> Event:
    return Event(seq, "job/1", seq, "job.noted", 1, 0, "system", None, {})


def test_a_new_ring_knows_the_head_and_nothing_before() -> None:
    ring = Ring(7)
    assert ring.since(7) == ()
    assert ring.since(9) == ()
    assert ring.since(6) is None


@given(st.lists(st.lists(st.integers(0, 50), max_size=9), max_size=30), st.integers(0, 5))
def test_a_ring_gives_all_events_beyond_a_position_or_none(batches: list[list[int]], start: int) -> None:
    ring = Ring(start, events=8, size=100)
    head, kept = start, 0
    for sizes in batches:
        ring.extend([event(head + number + 1) for number in range(len(sizes))], sizes)
        head += len(sizes)
        for after in range(head + 2):
            since = ring.since(after)
            if since is not None:
                assert [one.seq for one in since] == list(range(max(after, start) + 1, head + 1))
                kept = max(kept, len(since))
        assert ring.since(head) == ()
    assert kept <= 16


def test_large_events_shorten_the_ring() -> None:
    ring = Ring(0, events=100, size=1000)
    ring.extend([event(seq) for seq in range(1, 11)], [100] * 10)
    assert len(ring.since(0) or ()) == 10
    ring.extend([event(11)], [5000])
    assert ring.since(10) is None
    assert ring.since(11) == ()
    ring.extend([event(12)], [1])
    assert [one.seq for one in ring.since(11) or ()] == [12]
