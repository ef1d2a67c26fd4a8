"""The bytes of server-sent events."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetuned.api import sse
from finetuned.client.sse import Parser
from finetuned_events import Event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def event(data: dict[str, Any]) -> Event:
    return Event(7, "job/job-1", 3, "job.progress", 1, 1_000_001, "attempt:1", None, data)


@given(st.dictionaries(st.text(), JSON))
def test_any_event_survives_the_wire(data: dict[str, Any]) -> None:
    (frame,) = Parser().feed(sse.frame(event(data)))
    assert (frame.id, frame.event) == ("7", "job.progress")
    assert json.loads(frame.data or "") == {
        "seq": 7, "stream": "job/job-1", "version": 3, "type": "job.progress",
        "at": "1970-01-01T00:00:01.000001Z", "actor": "attempt:1", "data": data,
    }  # fmt: skip


def test_a_heartbeat_has_an_id_and_nothing_to_dispatch() -> None:
    (frame,) = Parser().feed(sse.heartbeat(42))
    assert (frame.id, frame.data) == ("42", None)


def test_the_opening_sets_the_pause_before_a_reconnect_and_dispatches_nothing() -> None:
    assert list(Parser().feed(sse.opening())) == []
    assert sse.opening() == b"retry: 2000\n\n"


def test_a_reset_carries_the_head_as_the_cursor_to_go_on_from() -> None:
    (frame,) = Parser().feed(sse.reset(9))
    assert (frame.event, frame.id) == ("reset", "9")
    assert json.loads(frame.data or "")["head"] == 9


@given(st.binary(min_size=1, max_size=300))
def test_a_chunk_says_its_length_in_hexadecimal(payload: bytes) -> None:
    size, _, rest = sse.chunk(payload).partition(b"\r\n")
    assert int(size, 16) == len(payload)
    assert rest == payload + b"\r\n"
