from __future__ import annotations

from pathlib import Path

import pytest

from finetuned.attempts import tail
from finetuned.attempts.tail import SpoolTail
from finetuned_sdk.spool import BadLine, Fact, SpoolWriter, encode


def write(path: Path, facts: list[Fact]) -> None:
    path.write_bytes(b"".join(encode(fact) for fact in facts))


def steps(count: int, *, at: int = 0) -> list[Fact]:
    return [Fact(n, "progress", at, {"current_step": n}) for n in range(1, count + 1)]


def drain(spool: SpoolTail) -> list[Fact | BadLine]:
    lines: list[Fact | BadLine] = []
    while batch := spool.read():
        lines += batch
    return lines


def test_a_spool_that_is_not_there_yet_has_no_lines(tmp_path: Path) -> None:
    assert SpoolTail(tmp_path / "spool", line=0).read() == []


def test_lines_are_given_out_once_while_the_spool_grows(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    spool = SpoolTail(tmp_path / "spool", line=0)
    for phase in "abc":
        writer.append("phase", {"phase": phase})
        (line,) = spool.read()
        assert isinstance(line, Fact)
        assert line.data == {"phase": phase}
        assert spool.read() == []
    writer.close()


def test_reading_goes_on_after_the_line_that_is_in_the_log(tmp_path: Path) -> None:
    write(tmp_path / "spool", steps(50, at=1))
    assert [line.line for line in drain(SpoolTail(tmp_path / "spool", line=47))] == [48, 49, 50]


def test_a_line_longer_than_a_block_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "READ_SIZE", 64)
    facts = [Fact(n, "phase", 1, {"phase": "x" * size}) for n, size in enumerate((1, 1000, 5), 1)]
    write(tmp_path / "spool", facts)
    assert drain(SpoolTail(tmp_path / "spool", line=0)) == facts


def test_an_unfinished_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    line = encode(Fact(1, "phase", 1, {"phase": "x"}))
    path.write_bytes(line[:20])
    spool = SpoolTail(path, line=0)
    assert spool.read() == []
    path.write_bytes(line)
    assert len(spool.read()) == 1


def test_beyond_a_hundred_facts_a_second_progress_is_skipped_and_counted(tmp_path: Path) -> None:
    facts = steps(300)
    facts.append(Fact(301, "checkpoint", 0, {"step": 300, "path": "/c"}))
    facts.append(Fact(302, "progress", 1_000_000, {"current_step": 301}))
    write(tmp_path / "spool", facts)
    spool = SpoolTail(tmp_path / "spool", line=0)
    assert [line.line for line in drain(spool)] == [*range(1, 101), 301, 302]
    assert spool.skipped == 200


def test_what_was_written_slowly_is_not_skipped_when_it_is_read_at_once(tmp_path: Path) -> None:
    write(tmp_path / "spool", [Fact(n, "progress", n * 100_000, {}) for n in range(1, 1001)])
    spool = SpoolTail(tmp_path / "spool", line=0)
    assert len(drain(spool)) == 1000
    assert spool.skipped == 0


def test_bad_lines_are_given_out_too(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"rubbish\n" + encode(Fact(2, "phase", 1, {})))
    assert [type(line) for line in drain(SpoolTail(tmp_path / "spool", line=0))] == [BadLine, Fact]


def test_the_paths_that_were_published_are_known_also_from_recorded_lines(tmp_path: Path) -> None:
    facts = [
        Fact(1, "checkpoint", 1, {"path": "/c/1"}),
        Fact(2, "artifact", 1, {"path": "/a"}),
        Fact(3, "checkpoint", 1, {"path": "/c/2"}),
        Fact(4, "checkpoint_discarded", 1, {"path": "/c/1"}),
    ]
    write(tmp_path / "spool", facts)
    spool = SpoolTail(tmp_path / "spool", line=4)
    assert spool.read() == []
    assert (list(spool.artifacts), list(spool.checkpoints)) == (["/a"], ["/c/2"])


def test_what_the_lines_tell_of_the_work_is_known_of_those_that_are_in_the_log_already_too(
    tmp_path: Path,
) -> None:
    told = [
        Fact(1, "phase", 1, {"phase": "training"}),
        Fact(2, "progress", 1, {"current_step": 0}),  # no step is done yet
        Fact(3, "progress", 1, {"current_step": 7}),
        Fact(4, "phase", 1, {"phase": ["no name"]}),
    ]
    write(tmp_path / "spool", told)
    spool = SpoolTail(tmp_path / "spool", line=3)
    assert (spool.work, spool.step, spool.phase) == (0, None, None)
    drain(spool)
    assert (spool.work, spool.step, spool.phase) == (4, 7, "training")
