"""The wire of server-sent events: bytes that mean something to an EventSource. Pure.

Source: WHATWG HTML, "Server-sent events". A frame without ``data`` is not dispatched, yet its ``id`` counts as
the last one seen, which is how a heartbeat moves a client's cursor past events that its filter left out.
"""

from __future__ import annotations

import orjson

from finetuned import views
from finetuned_events import Event

CONTENT_TYPE = "text/event-stream"
RETRY_MS = 2000  # how long a client waits before it connects again


def frame(event: Event) -> bytes:
    """An event: its position as id, its type, and the same JSON as in pages."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        event.seq,
        event.type.encode(),
        orjson.dumps(views.event(event)),
    )


def heartbeat(seq: int) -> bytes:
    """A sign of life that says how far was looked."""
    return b":\nid: %d\n\n" % seq


def reset(head: int) -> bytes:
    """The client's cursor is beyond the head: it knows another log. It goes on from the head."""
    return _reset("cursor_beyond_head", head, head)


def archived(position: int, head: int) -> bytes:
    """What follows the client's cursor is in an archive, up to a position. It goes on from there."""
    return _reset("archived", position, head)


def _reset(reason: str, position: int, head: int) -> bytes:
    data = orjson.dumps({"reason": reason, "head": head})
    return b"id: %d\nevent: reset\ndata: %b\n\n" % (position, data)


def opening() -> bytes:
    """What each stream begins with."""
    return b"retry: %d\n\n" % RETRY_MS


def chunk(payload: bytes) -> bytes:
    """The payload in HTTP/1.1's chunked framing (RFC 9112, 7.1), to be written to many connections as it is."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
