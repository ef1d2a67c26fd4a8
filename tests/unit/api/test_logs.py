"""Reading output files while they are rotated, removed and written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned import logs
from finetuned.logs import OutputReader


def everything(reader: OutputReader) -> bytes:
    return b"".join(iter(reader.read, b""))


def rotate(directory: Path, kept: int = 6) -> None:
    """As the runner does it: the higher the number, the older."""
    (directory / f"output.log.{kept}").unlink(missing_ok=True)
    for number in range(kept - 1, 0, -1):
        older = directory / f"output.log.{number}"
        if older.exists():
            older.rename(directory / f"output.log.{number + 1}")
    (directory / "output.log").rename(directory / "output.log.1")


def test_nothing_there_reads_as_nothing_and_what_comes_later_is_read(tmp_path: Path) -> None:
    with OutputReader(tmp_path / "attempt") as reader:
        assert everything(reader) == b""
        assert reader.seek_tail(3) == 0
        (tmp_path / "attempt").mkdir()
        assert everything(reader) == b""
        (tmp_path / "attempt" / "output.log").write_bytes(b"here\n")
        assert everything(reader) == b"here\n"


def test_other_files_are_not_output(tmp_path: Path) -> None:
    for name in ("output.log.gz", "output.logs", "output.log.", "output.log.1.gz", "spec.json"):
        (tmp_path / name).write_bytes(b"no")
    (tmp_path / "output.log").write_bytes(b"yes")
    with OutputReader(tmp_path) as reader:
        assert everything(reader) == b"yes"


def test_files_are_ordered_by_number_and_not_by_name(tmp_path: Path) -> None:
    for number in range(12, 0, -1):
        (tmp_path / f"output.log.{number}").write_bytes(b"%d\n" % number)
    (tmp_path / "output.log").write_bytes(b"0\n")
    with OutputReader(tmp_path) as reader:
        assert everything(reader).split() == [b"%d" % number for number in range(12, -1, -1)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.booleans()), max_size=40))
def test_no_byte_is_lost_or_repeated_however_writing_rotating_and_reading_interleave(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[bool, int, bool]]
) -> None:
    directory = tmp_path_factory.mktemp("attempt")
    written, got, rotations = bytearray(), bytearray(), 0
    (directory / "output.log").touch()
    with OutputReader(directory) as reader:
        for number, (rotates, lines, reads) in enumerate(moves):
            with (directory / "output.log").open("ab") as file:
                for line in range(lines):
                    file.write(b"%d:%d\n" % (number, line))
                    written += b"%d:%d\n" % (number, line)
            if rotates and rotations < 6:  # what retention removes is allowed to be missing
                rotations += 1
                rotate(directory)
                (directory / "output.log").touch()
            if reads:
                got += everything(reader)
        got += everything(reader)
    assert bytes(got) == bytes(written)


def test_a_reader_whose_file_retention_removed_goes_on_with_the_oldest_there_is(tmp_path: Path) -> None:
    (tmp_path / "output.log").write_bytes(b"one\n")
    with OutputReader(tmp_path) as reader:
        assert reader.read() == b"one\n"
        rotate(tmp_path)
        (tmp_path / "output.log").write_bytes(b"three\n")
        (tmp_path / "output.log.1").unlink()
        assert everything(reader) == b"three\n"


def test_lines_written_between_the_last_read_and_the_rename_are_read_before_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "output.log").write_bytes(b"one\n")
    with OutputReader(tmp_path) as reader:
        assert reader.read() == b"one\n"
        read, calls = os.read, 0

        def read_then_rotate(descriptor: int, size: int) -> bytes:
            nonlocal calls
            calls += 1
            block = read(descriptor, size)
            if calls == 1:
                assert block == b""
                with (tmp_path / "output.log").open("ab") as file:
                    file.write(b"two\n")
                rotate(tmp_path)
                (tmp_path / "output.log").write_bytes(b"three\n")
            return block

        monkeypatch.setattr(os, "read", read_then_rotate)
        assert reader.read() == b"two\n"
        assert reader.read() == b"three\n"


def test_a_file_that_is_rotated_between_looking_and_opening_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "output.log").write_bytes(b"one\n")
    opened, races = os.open, iter(("rename", "replace"))

    def race_then_open(path: Path, flags: int) -> int:
        match next(races, None):
            case "rename":
                rotate(tmp_path)
            case "replace":
                (tmp_path / "output.log.1").rename(tmp_path / "output.log.2")
                (tmp_path / "output.log.1").write_bytes(b"two\n")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", race_then_open)
    with OutputReader(tmp_path) as reader:
        assert everything(reader) == b"one\ntwo\n"


def test_tail_stops_where_retention_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "output.log.1").write_bytes(b"one\n")
    (tmp_path / "output.log").write_bytes(b"two\n")
    tail = logs._tail

    def remove_then_tail(path: Path, lines: int) -> tuple[int, int]:
        (tmp_path / "output.log.1").unlink(missing_ok=True)
        return tail(path, lines)

    monkeypatch.setattr(logs, "_tail", remove_then_tail)
    with OutputReader(tmp_path) as reader:
        assert reader.seek_tail(5) == 1
        assert everything(reader) == b"two\n"


@given(text=st.text(alphabet="ab\n", max_size=60), wanted=st.integers(0, 8))
def test_the_tail_is_what_splitting_into_lines_gives(
    tmp_path_factory: pytest.TempPathFactory, text: str, wanted: int
) -> None:
    directory = tmp_path_factory.mktemp("attempt")
    (directory / "output.log").write_text(text)
    with OutputReader(directory) as reader:
        reader.seek_tail(wanted)
        lines = text.splitlines(keepends=True)
        assert everything(reader).decode() == "".join(lines[len(lines) - min(wanted, len(lines)) :])
