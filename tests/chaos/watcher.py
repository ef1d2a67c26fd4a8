"""A client of the event stream that is cut again and again, and keeps every byte of every event it was shown."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.server import AWAY

Event = Mapping[str, Any]


class Watcher:
    """Follows the whole log from its beginning on a thread, resuming by ``Last-Event-ID``.

    ``life_s`` is how long a connection lives at most, in seconds: where it is cut is chance, also within an event.
    """

    def __init__(
        self, path: Path, chance: random.Random, *, life_s: float = 0.5, cuts: int | None = None
    ) -> None:
        self.seen: list[tuple[int, bytes]] = []
        self.resets = 0
        self.cuts = 0
        self.last = 0
        self._socket = path
        self._chance = chance
        self._life_s = life_s
        self._cuts_wanted = cuts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")

    def start(self) -> Watcher:
        """Begin."""
        self._thread.start()
        return self

    @property
    def is_done(self) -> bool:
        """Whether it was cut as often as it was to be."""
        return self._cuts_wanted is not None and self.cuts >= self._cuts_wanted

    def close(self) -> None:
        """End it, wherever it is."""
        self._over.set()
        self._thread.join()

    def catch_up(self, head: int, seconds: float = 60) -> bool:
        """Wait until it has seen everything up to ``head``; whether it has."""
        deadline = time.monotonic() + seconds
        while self.last < head and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.last >= head

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._follow()
            except AWAY:
                time.sleep(self._chance.uniform(0.01, 0.1))

    def _follow(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(5)
            stream.connect(str(self._socket))
            version = self._chance.choice(("1.0", "1.1"))  # without and with chunks
            stream.sendall(
                f"GET /v1/events?after=0 HTTP/{version}\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
                f"Last-Event-ID: {self.last}\r\n\r\n".encode()
            )
            self._read(stream)

    def _read(self, stream: socket.socket) -> None:
        end = time.monotonic() + self._chance.uniform(0, self._life_s)
        head, text, held = b"", Body(), b""
        stream.settimeout(0.05)
        while not self._over.is_set():
            if time.monotonic() > end and not self.is_done:
                self._cut(stream)
                return
            try:
                data = stream.recv(self._chance.randint(1, 4096))
            except TimeoutError:
                continue
            if not data:
                return
            if not text.begun:
                head += data
                if b"\r\n\r\n" not in head:
                    continue
                head, _, data = head.partition(b"\r\n\r\n")
                text.begin(head)
            *frames, held = (held + text.feed(data)).split(b"\n\n")
            for frame in frames:
                self._take(frame)

    def _cut(self, stream: socket.socket) -> None:
        self.cuts += 1
        if self._chance.random() < 0.5:  # without a word: what was not read is thrown away
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _take(self, frame: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line)
        if b"id" not in fields:
            return
        if fields.get(b"event") == b"reset":
            self.resets += 1
        elif b"data" in fields:
            self.seen.append((int(fields[b"id"]), fields[b"data"]))
        self.last = int(fields[b"id"])


class Body:
    """The body of an answer, chunked or not, as its bytes come."""

    def __init__(self) -> None:
        self.begun = False
        self._chunked = False
        self._held = b""

    def begin(self, head: bytes) -> None:
        """Take the headers. Raises ``OSError`` for a refusal."""
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise OSError(head.decode(errors="replace"))
        self.begun = True
        self._chunked = b"transfer-encoding: chunked" in head.lower()

    def feed(self, data: bytes) -> bytes:
        """The content of the bytes; what is not whole yet is kept."""
        if not self._chunked:
            return data
        self._held += data
        found = b""
        while b"\r\n" in self._held:
            size, _, rest = self._held.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            found += rest[:length]
            self._held = rest[length + 2 :]
        return found


def compare(
    watchers: Sequence[Watcher], events: Sequence[Event], head: int
) -> tuple[int, int, int, list[str]]:
    """Events up to ``head`` that watchers missed, had twice, and had other than the log has them; with details."""
    wanted = {event["seq"]: event for event in events}
    missing = repeated = different = 0
    details: list[str] = []
    for number, watcher in enumerate(watchers):
        positions = [seq for seq, _ in watcher.seen]
        lacking = {seq for seq in wanted if seq <= head} - set(positions)
        missing += len(lacking)
        repeated += len(positions) - len(set(positions))
        wrong = [seq for seq, data in watcher.seen if seq not in wanted or json.loads(data) != wanted[seq]]
        different += len(wrong) + watcher.resets + (positions != sorted(positions))
        if lacking or wrong or watcher.resets:
            details.append(
                f"watcher {number}: lacks {sorted(lacking)[:5]}, other {wrong[:5]}, {watcher.resets} resets"
            )
    return missing, repeated, different, details
