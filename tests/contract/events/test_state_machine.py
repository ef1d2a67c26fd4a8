"""Random histories against a model of a few lines, with a crash between any two steps."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from finetuned_events import Anchor, Event, EventLog, MemoryLog, NewEvent, StaleCursorError, WrongVersionError

T = TypeVar("T")

STREAMS = st.sampled_from(["job/1", "job/2", "devices", "model/ä"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.lists(st.tuples(STREAMS, VALUES), max_size=4)


class Refused(Exception):
    pass


class Last:
    """State and projection in one: the number of events and the last position of each stream."""

    name = "last"
    version = 1
    schema = "CREATE TABLE last (stream TEXT PRIMARY KEY, count INTEGER, seq INTEGER) WITHOUT ROWID;"
    tables = ("last",)

    def __init__(self, rows: dict[str, tuple[int, int]] | None = None) -> None:
        self.rows = rows or {}

    def initial(self, connection: sqlite3.Connection) -> Last:
        return Last()

    def load(self, connection: sqlite3.Connection) -> Last:
        return Last({stream: (count, seq) for stream, count, seq in connection.execute("SELECT * FROM last")})

    def apply(self, event: Event) -> None:
        self.rows[event.stream] = (self.rows.get(event.stream, (0, 0))[0] + 1, event.seq)

    def committed(self) -> None:
        """Small enough to keep."""

    def write(self, connection: sqlite3.Connection, state: Last, events: Sequence[Event]) -> None:
        connection.executemany(
            "REPLACE INTO last VALUES (?, ?, ?)",
            [(stream, *state.rows[stream]) for stream in {event.stream for event in events}],
        )


class LogMachine(RuleBasedStateMachine):
    """The model: a list of (stream, value) and a dictionary of cursors."""

    kind: type[EventLog[Any]] = MemoryLog

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="log-"))
        self.path = self.folder / "0.db"
        self.crashes = 0
        self.expected: list[tuple[str, Any]] = []
        self.cursors: dict[str, int] = {}
        self.anchors: list[Anchor] = []
        self.open()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def open(self) -> None:
        self.context = self.kind.open(self.path, model=Last(), projections=[Last()])
        self.log = self.run(self.context.__aenter__())

    def close(self) -> None:
        self.run(self.context.__aexit__(None, None, None))

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    def versions(self, stream: str) -> int:
        return sum(1 for name, _ in self.expected if name == stream)

    @rule(events=EVENTS)
    def append(self, events: list[tuple[str, Any]]) -> None:
        appended = self.run(
            self.log.append([NewEvent(name, "noted", {"value": value}) for name, value in events])
        )
        self.expected += events
        assert [(event.stream, event.data["value"]) for event in appended] == events

    @rule(stream=STREAMS, off=st.integers(-1, 1), value=VALUES)
    def append_expecting(self, stream: str, off: int, value: Any) -> None:
        version = self.versions(stream)
        work = self.log.append(
            [NewEvent(stream, "noted", {"value": value})], expected={stream: version + off}
        )
        if off:
            with pytest.raises(WrongVersionError):
                self.run(work)
        else:
            self.run(work)
            self.expected.append((stream, value))

    @rule(batches=st.lists(st.tuples(STREAMS, st.booleans()), min_size=2, max_size=6))
    def decide_together(self, batches: list[tuple[str, bool]]) -> None:
        def decision(stream: str, refuse: bool) -> Any:
            def decide(state: Last) -> Sequence[NewEvent]:
                if refuse:
                    raise Refused
                return [NewEvent(stream, "noted", {"value": state.rows.get(stream, (0, 0))[0]})]

            return decide

        async def together() -> list[object]:
            return await asyncio.gather(
                *(self.log.execute(decision(*batch)) for batch in batches), return_exceptions=True
            )

        for (stream, refuse), outcome in zip(batches, self.run(together()), strict=True):
            if refuse:
                assert isinstance(outcome, Refused)
            else:
                assert isinstance(outcome, tuple)
                assert outcome[0].data == {"value": self.versions(stream)}
                self.expected.append((stream, self.versions(stream)))

    @rule(follower=st.sampled_from("ab"), position=st.integers(0, 20), stream=STREAMS)
    def react(self, follower: str, position: int, stream: str) -> None:
        work = self.log.execute(
            lambda _: [NewEvent(stream, "noted", {"value": None})], cursor=(follower, position)
        )
        if position < self.cursors.get(follower, 0):
            with pytest.raises(StaleCursorError):
                self.run(work)
        else:
            self.run(work)
            self.expected.append((stream, None))
            self.cursors[follower] = position

    @rule()
    def anchor(self) -> None:
        self.anchors.append(self.run(self.log.anchor()))

    @precondition(lambda self: self.kind is EventLog)
    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    @precondition(lambda self: self.kind is EventLog)
    @rule()
    def crash(self) -> None:
        """Go on from what is on disk at this moment, as after a SIGKILL: database, WAL, no clean-up."""
        self.crashes += 1
        copy = self.folder / f"{self.crashes}.db"
        for suffix in ("", "-wal"):
            if os.path.exists(f"{self.path}{suffix}"):  # noqa: PTH110 - a name with a suffix
                shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        self.close()
        self.path = copy
        self.open()

    @rule()
    def rebuild(self) -> None:
        assert self.run(self.log.rebuild()).equal

    @rule()
    def verify(self) -> None:
        report = self.run(self.log.verify(self.anchors))
        assert report.ok, report.problems
        assert report.events == len(self.expected)

    @invariant()
    def the_log_is_what_was_acknowledged(self) -> None:
        events = self.run(self.log.read(limit=10_000))
        assert [(event.stream, event.data["value"]) for event in events] == self.expected
        assert [event.seq for event in events] == list(range(1, len(events) + 1)), "a gap"
        assert self.log.head == len(events)
        for stream in {event.stream for event in events}:
            versions = [event.version for event in events if event.stream == stream]
            assert versions == list(range(1, len(versions) + 1))
        assert [event.at for event in events] == sorted(event.at for event in events)

    @invariant()
    def the_projection_is_the_fold(self) -> None:
        fold: dict[str, tuple[int, int]] = {}
        for seq, (stream, _) in enumerate(self.expected, 1):
            fold[stream] = (fold.get(stream, (0, 0))[0] + 1, seq)
        rows = self.run(self.log.fetch("SELECT stream, count, seq FROM last"))
        assert {stream: (count, seq) for stream, count, seq in rows} == fold

    @invariant()
    def cursors_are_kept(self) -> None:
        for follower, position in self.cursors.items():
            assert self.run(self.log.position(follower)) == position


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", [EventLog, MemoryLog])
def test_any_history_is_kept(kind: type[EventLog[Any]]) -> None:
    machine = type("Machine", (LogMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
