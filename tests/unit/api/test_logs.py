"""Reading output files while they are rotated, removed and written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.output import files as logs
from finetuned.output.files import OutputReader


def everything(reader: OutputReader) -> bytes:
    return b"".join(iter(reader.read, b""))


def rotate(directory: Path, kept: int = 6) -> None:
    """As the runner does it: named for the position of the first byte; the oldest goes."""
    rotated = sorted(directory.glob("output.log.*"), key=lambda path: int(path.suffix[1:]))
    start = int(rotated[-1].suffix[1:]) + rotated[-1].stat().st_size if rotated else 0
    (directory / "output.log").rename(directory / f"output.log.{start}")
    for file in rotated[: max(0, len(rotated) + 1 - kept)]:
        file.unlink()


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


def test_files_are_ordered_by_position_and_not_by_name(tmp_path: Path) -> None:
    written = b""
    for number in range(12):
        line = b"%d\n" % number
        (tmp_path / f"output.log.{len(written)}").write_bytes(line)
        written += line
    (tmp_path / "output.log").write_bytes(b"last\n")
    with OutputReader(tmp_path) as reader:
        assert everything(reader) == written + b"last\n"


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
        for line in (b"two\n", b"three\n", b"four\n"):
            rotate(tmp_path)
            (tmp_path / "output.log").write_bytes(line)
        (tmp_path / "output.log.0").unlink()
        (tmp_path / "output.log.4").unlink()
        assert everything(reader) == b"three\nfour\n"
        assert reader.position == len(b"one\ntwo\nthree\nfour\n")


def test_a_reader_goes_on_where_somebody_removed_every_rotated_file(tmp_path: Path) -> None:
    (tmp_path / "output.log").write_bytes(b"one\n")
    with OutputReader(tmp_path) as reader:
        assert reader.read() == b"one\n"
        rotate(tmp_path)
        (tmp_path / "output.log").write_bytes(b"two\n")
        (tmp_path / "output.log.0").unlink()
        assert everything(reader) == b"two\n"


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


@pytest.mark.parametrize("is_new_there", [False, True])
def test_a_file_that_is_rotated_between_looking_and_opening_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new_there: bool
) -> None:
    (tmp_path / "output.log").write_bytes(b"one\n")
    opened, races = os.open, iter((True,))

    def race_then_open(path: Path, flags: int) -> int:
        if next(races, False):
            rotate(tmp_path)
            if is_new_there:
                (tmp_path / "output.log").write_bytes(b"two\n")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", race_then_open)
    with OutputReader(tmp_path) as reader:
        assert everything(reader) == (b"one\ntwo\n" if is_new_there else b"one\n")


def test_tail_stops_where_retention_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "output.log.0").write_bytes(b"one\n")
    (tmp_path / "output.log").write_bytes(b"two\n")
    tail = logs._tail

    def remove_then_tail(path: Path, lines: int) -> tuple[int, int]:
        (tmp_path / "output.log.0").unlink(missing_ok=True)
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


@given(
    pieces=st.lists(st.text(alphabet="ab\n", max_size=30), min_size=1, max_size=6),
    position=st.integers(0, 200),
)
def test_reading_from_a_position_gives_what_was_printed_behind_it(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], position: int
) -> None:
    directory = tmp_path_factory.mktemp("attempt")
    for number, piece in enumerate(pieces):
        (directory / "output.log").write_text(piece)
        if piece and number < len(pieces) - 1:
            rotate(directory)
    if not pieces[-1] and not (directory / "output.log").exists():
        (directory / "output.log").touch()
    written = "".join(pieces)
    with OutputReader(directory) as reader:
        assert reader.end == len(written)
        reader.seek(position)
        assert reader.position == min(position, len(written))
        assert everything(reader).decode() == written[position:]
        assert reader.position == len(written)


def test_a_position_that_was_removed_becomes_the_oldest_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "output.log.100").write_bytes(b"old\n")
    (tmp_path / "output.log").write_bytes(b"new\n")
    with OutputReader(tmp_path) as reader:
        reader.seek(7)
        assert reader.position == 100
        assert everything(reader) == b"old\nnew\n"
