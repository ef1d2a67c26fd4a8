from __future__ import annotations

import errno
import math
import os
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned_sdk import spool
from finetuned_sdk.errors import PluginError
from finetuned_sdk.spool import BadLine, Fact, SpoolWriter, decode, encode, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(path: Path) -> list[Fact | BadLine]:
    lines, _ = parse(path.read_bytes(), after=0)
    return lines


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5), st.integers(0, 2000))
def test_what_is_written_is_read_and_an_unfinished_line_is_left(
    records: list[dict[str, Any]], cut: int
) -> None:
    facts = [Fact(number, "progress", 7, data) for number, data in enumerate(records, 1)]
    written = b"".join(encode(fact) for fact in facts)
    lines, used = parse(written, after=0)
    assert [line.data for line in lines if isinstance(line, Fact)] == [
        spool.plain(fact.data) for fact in facts
    ]
    assert used == len(written)
    part, used = parse(written[:cut], after=0)
    rest, _ = parse(written[used:], after=len(part))
    assert [*part, *rest] == lines


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(position: int, flip: int) -> None:
    line = bytearray(encode(Fact(1, "progress", 1, {"loss": 1.25, "note": "x"}))[:-1])
    line[position % len(line)] ^= flip
    if b"\n" in line:
        return
    assert isinstance(decode(1, bytes(line)), BadLine) or bytes(line[:8]).lower() != bytes(line[:8])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "damaged"),
        (b"nonsense", "damaged"),
        (b"00000000 {}", "damaged"),
        (b"00000000 " + encode(Fact(1, "phase", 1, {})).split(b" ", 1)[1].strip(), "checksum"),
        (encode(Fact(3, "phase", 1, {})).strip(), "out of sequence"),
        (encode(Fact(1, "gossip", 1, {})).strip(), "unknown fact type 'gossip'"),
    ],
)
def test_a_line_that_does_not_hold_says_why(raw: bytes, reason: str) -> None:
    line = decode(1, raw)
    assert isinstance(line, BadLine)
    assert reason in line.reason


def test_a_bad_line_spoils_no_other() -> None:
    lines = [encode(Fact(number, "phase", 1, {"phase": "x"})) for number in (1, 2, 3)]
    lines[1] = b"\0" * 30 + b"\n"
    parsed, _ = parse(b"".join(lines), after=0)
    assert [type(line) for line in parsed] == [Fact, BadLine, Fact]


def test_values_of_other_libraries_become_plain() -> None:
    class Scalar:
        def item(self) -> float:
            return 0.5

    assert spool.plain({1: Scalar(), "p": Path("/x"), "s": {2}, "n": math.nan}) == {
        "1": 0.5, "p": "/x", "s": [2], "n": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (2**64, 2.0**64),
        (-(2**63) - 1, -(2.0**63)),
        (10**400, None),
        (10**5000, None),
    ],
    ids=["largest", "smallest", "too-large", "too-small", "beyond-floats", "beyond-text"],
)
def test_whole_numbers_that_other_readers_cannot_hold_become_floats(value: int, kept: float | None) -> None:
    assert spool.plain([value]) == [kept]
    assert type(spool.plain(value)) is type(kept)
    orjson.dumps(spool.plain(value))


def test_an_array_becomes_text_and_not_an_error() -> None:
    class Array:
        def item(self) -> float:
            raise ValueError("can only convert an array of size 1")

        def __str__(self) -> str:
            return "[1 2]"

    assert spool.plain(Array()) == "[1 2]"


def line_of(body: str) -> bytes:
    return b"%08x %b" % (zlib.crc32(body.encode()), body.encode())


def test_numbers_beyond_64_bits_in_a_foreign_line_do_not_reach_the_log() -> None:
    body = '{"n":1,"at":1,"type":"result","data":{"values":{"n":' + str(2**70) + "}}}"
    fact = decode(1, line_of(body))
    assert isinstance(fact, Fact)
    assert fact.data == {"values": {"n": 2.0**70}}


@pytest.mark.parametrize(
    "body",
    [
        '{"n":1,"at":"now","type":"phase","data":{}}',
        '{"n":1,"at":1,"type":"phase","data":[]}',
        '{"n":1,"at":1,"type":["phase"],"data":{}}',
        '{"n":1,"at":1,"type":"phase","data":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"n":1,"at":1,"type":"phase","data":{"x":' + "9" * 5000 + "}}",
    ],
    ids=["time", "data", "type", "depth", "digits"],
)
def test_a_foreign_line_of_another_shape_is_a_bad_line(body: str) -> None:
    assert isinstance(decode(1, line_of(body)), BadLine)


def test_a_fact_that_is_too_long_is_refused_and_telemetry_dropped(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    with pytest.raises(PluginError, match="put what is long into an artifact"):
        writer.append("audit", {"report": {"warnings": ["x" * spool.MAX_LINE]}})
    writer.append("progress", {"note": "x" * spool.MAX_LINE})
    writer.append("phase", {"phase": "x"})
    writer.close()
    assert writer.dropped == 2
    assert [line.line for line in read(tmp_path / "spool")] == [1]


@pytest.mark.parametrize("fact_type", sorted(spool.FACT_TYPES))
def test_what_the_job_hangs_on_is_on_disk_before_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fact_type: str
) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    writer.append(fact_type, {"path": "/c"})
    matters = {"checkpoint", "checkpoint_discarded", "artifact", "model", "result", "error"}
    assert sizes == ([(tmp_path / "spool").stat().st_size] if fact_type in matters else [])


def test_a_lone_surrogate_makes_a_line_that_can_be_read() -> None:
    fact = decode(1, encode(Fact(1, "phase", 1, {"phase": "a\ud800b"}))[:-1])
    assert isinstance(fact, Fact)
    assert fact.data == {"phase": "a?b"}


def test_a_writer_goes_on_after_the_lines_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    first = SpoolWriter(path)
    first.append("phase", {"phase": "a"})
    first.close()
    with path.open("ab") as file:
        file.write(b"0123 {torn")
    second = SpoolWriter(path)
    second.append("phase", {"phase": "b"})
    second.close()
    assert [line.data for line in read(path) if isinstance(line, Fact)] == [{"phase": "a"}, {"phase": "b"}]


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")

    def write() -> None:
        for _ in range(50):
            writer.append("phase", {"phase": "x" * 99})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    lines = read(tmp_path / "spool")
    assert len(lines) == 200
    assert all(isinstance(line, Fact) for line in lines)


def test_a_forked_child_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked child"):
        writer.append("phase", {"phase": "x"})


class FullDisk:
    """``os.write`` on a disk that has room for so many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 0
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(descriptor, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_costs_no_fact_and_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    disk = FullDisk(monkeypatch)
    disk.room = 150  # one line and a piece of the next
    for step in range(5):
        writer.append("checkpoint", {"step": step, "path": "/c"})
    assert writer.waiting == 4
    assert len(read(tmp_path / "spool")) == 1
    assert (tmp_path / "spool").read_bytes().endswith(b"\n")
    disk.room = 10_000
    assert writer.flush()
    assert [line.data["step"] for line in read(tmp_path / "spool") if isinstance(line, Fact)] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert [line.line for line in read(tmp_path / "spool")] == [1, 2, 3, 4, 5]


def test_while_the_disk_is_full_telemetry_is_dropped_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    disk = FullDisk(monkeypatch)
    for step in range(spool.BACKLOG + 50):
        writer.append("progress", {"current_step": step})
        if step % 100 == 0:
            writer.append("checkpoint", {"step": step, "path": "/c"})
    assert writer.waiting == spool.BACKLOG
    assert writer.dropped == 61
    disk.room = 1_000_000
    writer.close()
    facts = [line for line in read(tmp_path / "spool") if isinstance(line, Fact)]
    assert [fact.data["step"] for fact in facts if fact.type == "checkpoint"] == list(range(0, 1001, 100))
    assert facts[-1].data["current_step"] == spool.BACKLOG + 49


def test_closing_waits_until_the_last_fact_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    disk = FullDisk(monkeypatch)
    writer.append("result", {"values": {}})

    def make_room(_: float) -> None:
        disk.room = 1000

    monkeypatch.setattr(time, "sleep", make_room)
    writer.close()
    assert [line.type for line in read(tmp_path / "spool") if isinstance(line, Fact)] == ["result"]
