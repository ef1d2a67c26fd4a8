"""Durable appends: our log beside raw sqlite3, the eventsourcing library and the disk itself, all in one run.

``python bench/log_bench.py --json FILE [--quick]``. Every figure is the median of rounds in which all contestants
take turns, because disks and neighbours differ from minute to minute. Beside the rates stand the CPU times, which
a busy machine distorts less.

Raw means: the same tables, index, triggers and pragmas, rows made beforehand (hash included), as many streams and
rows a commit as ours has callers and events a call, and nothing else: no decisions, versions, JSON, hashes or waiters.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from finetuned_events import EventLog, NewEvent, chain, codec, connection
from finetuned_events.sql import QUERIES

Runner = Callable[[Any], Any]

DATA = {
    "progress": 4.0, "current_step": 120, "total_steps": 3000, "loss": 1.2345678, "learning_rate": 2e-4,
    "grad_norm": 0.71, "samples_per_second": 12.5, "eta_seconds": 812.4,
}  # fmt: skip
SHAPES = ((1, 1), (8, 1), (64, 1), (512, 1), (1, 100), (8, 100))  # callers, events a call
PREFILL_STREAMS = 20_000
SAMPLE = 5_000  # newest events whose chain is checked after each run


@dataclass
class Figure:
    """One contestant in one shape, in one round: events a second, ms a call, CPU µs an event."""

    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass
class Cell:
    """All rounds of one contestant in one shape."""

    contestant: str
    callers: int
    per_call: int
    prefill: int
    rounds: list[Figure] = field(default_factory=list)

    def median(self, what: str) -> float:
        return float(statistics.median(getattr(figure, what) for figure in self.rounds))


@contextmanager
def measured(latencies: list[float], events: Callable[[], int], figures: list[Figure]) -> Iterator[None]:
    """Time what is inside; latencies in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    latencies.sort()
    count = events()
    figures.append(
        Figure(
            rate=count / wall,
            p50=latencies[len(latencies) // 2] * 1e3,
            p99=latencies[int(len(latencies) * 0.99)] * 1e3,
            cpu=cpu / count * 1e6,
        )
    )


def stream(number: int, prefilled: bool) -> str:
    """The stream of one caller; in a full log they lie scattered over it."""
    return f"job/{number * (PREFILL_STREAMS // 512) if prefilled else number}"


async def ours(path: Path, callers: int, per_call: int, seconds: float, prefilled: bool) -> Figure:
    """Our log through its public API: each caller waits for its append and appends again."""
    latencies: list[float] = []
    figures: list[Figure] = []
    async with EventLog.open(path) as log:
        before = log.head
        stop = time.perf_counter() + seconds

        async def call(number: int) -> None:
            name = stream(number, prefilled)
            now = time.perf_counter()
            while now < stop:
                await log.append([NewEvent(name, "job.progress", DATA) for _ in range(per_call)])
                began, now = now, time.perf_counter()
                latencies.append(now - began)

        with measured(latencies, lambda: len(latencies) * per_call, figures):
            async with asyncio.TaskGroup() as group:
                for number in range(callers):
                    group.create_task(call(number))

        ((count,),) = await log.fetch("SELECT count(*) FROM events")
        assert count == log.head == before + len(latencies) * per_call, "acknowledged and stored differ"

    check_chain(path)
    return figures[0]


def check_chain(path: Path) -> None:
    """Recompute the newest links of the chain."""
    with closing(connection.connect_reader(path)) as read:
        head, _, _ = read.execute(QUERIES["fetch_head"]).fetchone()
        start = max(head - SAMPLE, 0)
        found = read.execute(QUERIES["fetch_hash"], (start,)).fetchone()
        previous = found[0] if found else chain.GENESIS
        rows = read.execute(QUERIES["select_raw_events"], (start, SAMPLE)).fetchall()
        assert len(rows) == head - start
        for seq, name, version, kind, schema, at, actor, cause, data, stored in rows:
            previous = chain.link(previous, seq, name, version, kind, schema, at, actor, cause, data.encode())
            assert previous == stored, f"event {seq} does not fit the chain"


def raw(path: Path, callers: int, per_call: int, seconds: float, prefilled: bool) -> Figure:
    """The same rows by executemany, made before the clock runs."""
    with closing(connection.connect_writer(path)) as written:
        known = dict(written.execute("SELECT name, id FROM streams"))
        for number in range(callers):
            if stream(number, prefilled) not in known:
                written.execute("INSERT INTO streams (name) VALUES (?)", (stream(number, prefilled),))
        known = dict(written.execute("SELECT name, id FROM streams"))
        streams = [known[stream(number, prefilled)] for number in range(callers)]
        (head,) = written.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        highest = "SELECT coalesce(max(version), 0) FROM events WHERE stream = ?"
        versions = [written.execute(highest, (one,)).fetchone()[0] for one in streams]
        commits = commits_of(streams, versions, head, per_call, int(seconds * 200_000))

        latencies: list[float] = []
        figures: list[Figure] = []
        insert = f"{QUERIES['insert_events']} (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        stop = time.perf_counter() + seconds
        with measured(latencies, lambda: len(latencies) * callers * per_call, figures):
            for rows in commits:
                began = time.perf_counter()
                if began >= stop:
                    break
                written.execute("BEGIN IMMEDIATE")
                written.executemany(insert, rows)
                written.execute("COMMIT")
                latencies.append(time.perf_counter() - began)

    return figures[0]


def commits_of(
    streams: list[int], versions: list[int], head: int, per_call: int, most: int
) -> list[list[tuple[object, ...]]]:
    """Rows for as many commits as can happen (at most so many rows in all)."""
    data = codec.encode(DATA).decode()
    digest = bytes(range(32))
    made = []
    for commit in range(min(most // (len(streams) * per_call), 40_000) + 1):
        rows: list[tuple[object, ...]] = []
        for one, version in zip(streams, versions, strict=True):
            for number in range(per_call):
                head += 1
                at = version + commit * per_call + number + 1
                rows.append(
                    (head, one, at, "job.progress", 1, 1_795_349_797_467_786, "system", None, data, digest)
                )
        made.append(rows)
    return made


def eventsourcing(path: Path, per_call: int, seconds: float) -> Figure:
    """The eventsourcing library's SQLite recorder, events made beforehand, one thread (it has no group commit)."""
    from eventsourcing.persistence import StoredEvent
    from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

    datastore = SQLiteDatastore(str(path))
    recorder = SQLiteApplicationRecorder(datastore)
    recorder.create_table()
    state, stream_id = codec.encode(DATA), uuid4()
    calls = min(int(seconds * 250_000 / per_call), 60_000)
    made = [
        [
            StoredEvent(stream_id, call * per_call + number + 1, "job.progress", state)
            for number in range(per_call)
        ]
        for call in range(calls)
    ]
    latencies: list[float] = []
    figures: list[Figure] = []
    stop = time.perf_counter() + seconds
    with measured(latencies, lambda: len(latencies) * per_call, figures):
        for events in made:
            began = time.perf_counter()
            if began >= stop:
                break
            recorder.insert_events(events)
            latencies.append(time.perf_counter() - began)

    assert recorder.max_notification_id() == len(latencies) * per_call
    datastore.close()
    return figures[0]


def fsync(path: Path, seconds: float) -> Figure:
    """The disk itself: append what a commit of one event appends to the WAL (four pages), fdatasync."""
    latencies: list[float] = []
    figures: list[Figure] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    content = os.urandom(4 * 4120)
    # Written once before, as a WAL in use is: only the data need syncing, not the file's length.
    size = 1000 * len(content)
    os.write(descriptor, bytes(size))
    os.fsync(descriptor)
    stop = time.perf_counter() + seconds
    with measured(latencies, lambda: len(latencies), figures):
        offset = 0
        while (began := time.perf_counter()) < stop:
            os.pwrite(descriptor, content, offset)
            os.fdatasync(descriptor)
            latencies.append(time.perf_counter() - began)
            offset = (offset + len(content)) % size

    os.close(descriptor)
    return figures[0]


async def prefill(path: Path, events: int) -> None:
    """Fill a log with events round-robin over many streams."""
    async with EventLog.open(path) as log:

        async def fill(start: int) -> None:
            for first in range(start, events, 4 * 500):
                numbers = range(first, min(first + 500, events))
                await log.append(
                    [NewEvent(f"job/{n % PREFILL_STREAMS}", "job.progress", DATA) for n in numbers]
                )

        async with asyncio.TaskGroup() as group:
            for start in range(0, 2000, 500):
                group.create_task(fill(start))
        assert log.head == events


def tuned(run: Runner) -> Runner:
    """What a program can do for its log: uvloop, and fewer collections of garbage that is not there."""

    def runner(work: Any) -> Any:
        before = gc.get_threshold()
        gc.set_threshold(10_000, 20, 20)
        try:
            return run(work)
        finally:
            gc.set_threshold(*before)

    return runner


class Bench:
    """Runs everything in rounds, and keeps the cells."""

    def __init__(self, folder: Path, seconds: float, rounds: int, full: int) -> None:
        self.folder = folder
        self.seconds = seconds
        self.rounds = rounds
        self.full = full
        self.cells: dict[tuple[str, int, int, int], Cell] = {}
        self.runners: dict[str, Runner] = {"finetuned": asyncio.run}
        try:
            import uvloop
        except ImportError:
            print("uvloop is not installed: without the tuned contestant")
        else:
            self.runners["finetuned, tuned"] = tuned(uvloop.run)

    def run(self) -> None:
        """All rounds; the contestants of a shape directly after one another."""
        for number in range(self.rounds):
            print(f"round {number + 1} of {self.rounds}", file=sys.stderr, flush=True)
            with self.file() as path:
                self.note("fsync", 1, 1, 0, fsync(path, self.seconds))
            for shape in SHAPES:
                self.shape(*shape, None)
            for per_call in (1, 100):
                with self.file() as path:
                    self.note("eventsourcing", 1, per_call, 0, eventsourcing(path, per_call, self.seconds))

        if self.full:
            with self.file() as source:
                print(f"prefilling {self.full} events", file=sys.stderr, flush=True)
                asyncio.run(prefill(source, self.full))
                for _ in range(self.rounds):
                    self.shape(512, 1, source)

    def shape(self, callers: int, per_call: int, source: Path | None) -> None:
        full = self.full if source else 0
        with self.file(source) as path:
            self.note(
                "raw sqlite3",
                callers,
                per_call,
                full,
                raw(path, callers, per_call, self.seconds, bool(source)),
            )
        for name, runner in self.runners.items():
            with self.file(source) as path:
                figure = runner(ours(path, callers, per_call, self.seconds, bool(source)))
                self.note(name, callers, per_call, full, figure)

    @contextmanager
    def file(self, source: Path | None = None) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = Path(folder) / "events.db"
            if source:
                shutil.copy(source, path)
            os.sync()  # the last contestant's dirty pages are not this one's
            yield path

    def note(self, contestant: str, callers: int, per_call: int, prefilled: int, figure: Figure) -> None:
        key = (contestant, callers, per_call, prefilled)
        self.cells.setdefault(key, Cell(*key)).rounds.append(figure)

    def targets(self) -> list[dict[str, Any]]:
        """The figures that the project set itself, and what was reached; ratios are medians over the rounds."""
        return [target for name in self.runners for target in self.targets_of(name)]

    def targets_of(self, name: str) -> list[dict[str, Any]]:
        found = [
            self.ratio("1 caller x 100: share of raw", (name, 1, 100, 0), ("raw sqlite3", 1, 100, 0), 0.5),
            self.ratio("8 callers x 100: share of raw", (name, 8, 100, 0), ("raw sqlite3", 8, 100, 0), 0.65),
            self.ratio("512 callers: share of raw", (name, 512, 1, 0), ("raw sqlite3", 512, 1, 0), 0.6),
            self.ratio(
                "512 callers: times eventsourcing's single events",
                (name, 512, 1, 0), ("eventsourcing", 1, 1, 0), 10,
            ),
            self.most("512 callers: acknowledge p99, ms", self.cells[name, 512, 1, 0].median("p99"), 30),
            self.most(
                "lone caller: p99 in fsync p99s",
                self.cells[name, 1, 1, 0].median("p99") / self.cells["fsync", 1, 1, 0].median("p99"),
                3,
            ),
        ]  # fmt: skip
        if self.full:
            full = self.cells[name, 512, 1, self.full]
            found.append(self.most(f"512 callers, {self.full} rows there: p99, ms", full.median("p99"), 60))
        return [{"contestant": name, **target} for target in found]

    def ratio(
        self, what: str, one: tuple[str, int, int, int], other: tuple[str, int, int, int], least: float
    ) -> dict[str, Any]:
        pairs = zip(self.cells[one].rounds, self.cells[other].rounds, strict=True)
        figure = statistics.median(a.rate / b.rate for a, b in pairs)
        return {"what": what, "target": f"at least {least:g}", "figure": figure, "met": figure >= least}

    def most(self, what: str, figure: float, most: float) -> dict[str, Any]:
        return {"what": what, "target": f"at most {most:g}", "figure": figure, "met": figure <= most}

    def print(self) -> None:
        print(
            f"\n{'':20} {'callers':>7} {'a call':>6} {'rows':>8} {'events/s':>9} {'p50 ms':>7} {'p99 ms':>7} {'CPU µs':>7}"
        )
        for cell in sorted(self.cells.values(), key=lambda cell: (cell.prefill, cell.per_call, cell.callers)):
            print(
                f"{cell.contestant:20} {cell.callers:7} {cell.per_call:6} {cell.prefill:8} {cell.median('rate'):9,.0f} "
                f"{cell.median('p50'):7.2f} {cell.median('p99'):7.2f} {cell.median('cpu'):7.1f}"
            )
        print()
        for target in self.targets():
            mark = "met   " if target["met"] else "MISSED"
            print(
                f"{mark}  {target['contestant']:17} {target['what']:50} {target['figure']:8.2f}   ({target['target']})"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="does it work, not how fast")
    parser.add_argument("--prefill", type=int, default=None, help="rows of the full log (0: leave it out)")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None, help="for each figure of each round")
    options = parser.parse_args()
    full = options.prefill if options.prefill is not None else (20_000 if options.quick else 1_000_000)
    seconds = options.seconds or (0.2 if options.quick else 1.5)
    rounds = options.rounds or (1 if options.quick else 3)

    began, load = time.monotonic(), os.getloadavg()[0]
    # Beside the results, not in /tmp: that may be in memory, where an fsync costs nothing.
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.json.parent, prefix="log-bench-") as folder:
        bench = Bench(Path(folder), seconds, rounds, full)
        bench.run()

    bench.print()
    took = time.monotonic() - began
    print(
        f"\nload average {load:.1f} before, {os.getloadavg()[0]:.1f} after; SQLite {sqlite3.sqlite_version}; {took:.0f} s"
    )
    result = {
        "sqlite": sqlite3.sqlite_version,
        "load": load,
        "seconds": took,
        "cells": [asdict(cell) for cell in bench.cells.values()],
        "targets": bench.targets(),
    }
    options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
