"""The archive that is never written: other programs read it, and any range of it is what the whole has there."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.results import archive
from finetuned.results.archive import Layout, Member, Piece

CONTENTS = {
    "model/config.json": b'{"a": 1}',
    "model/empty.txt": b"",
    "model/weights/part-1.safetensors": random.Random(1).randbytes(70_000),
    "model/größe.bin": random.Random(2).randbytes(333),
}


def layout_of(contents: dict[str, bytes]) -> Layout:
    return Layout([Member(name, len(data), zlib.crc32(data)) for name, data in contents.items()])


def read(layout: Layout, contents: dict[str, bytes], start: int = 0, stop: int | None = None) -> bytes:
    files = list(contents.values())
    return b"".join(
        files[piece.member][piece.start : piece.stop] if isinstance(piece, Piece) else piece
        for piece in layout.pieces(start, layout.size if stop is None else stop)
    )


def test_zipfile_reads_every_file_back() -> None:
    whole = read(layout_of(CONTENTS), CONTENTS)
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert opened.testzip() is None
        assert {each.filename: opened.read(each) for each in opened.infolist()} == CONTENTS
        assert {each.date_time for each in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.skipif(shutil.which("unzip") is None, reason="there is no unzip here")
def test_unzip_finds_no_error(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(read(layout_of(CONTENTS), CONTENTS))
    result = subprocess.run(["unzip", "-t", str(file)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No errors detected" in result.stdout


def test_its_size_is_known_before_a_byte_is_read() -> None:
    layout = layout_of(CONTENTS)
    assert len(read(layout, CONTENTS)) == layout.size


def test_three_hundred_random_ranges_are_what_the_whole_has_there() -> None:
    layout = layout_of(CONTENTS)
    whole = read(layout, CONTENTS)
    chance = random.Random(3)
    for _ in range(300):
        start, stop = sorted(chance.sample(range(layout.size + 1), 2))
        assert read(layout, CONTENTS, start, stop) == whole[start:stop]


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=50), max_size=6), st.data())
def test_any_range_of_any_archive_is_what_the_whole_has_there(
    contents: dict[str, bytes], data: st.DataObject
) -> None:
    layout = layout_of(contents)
    whole = read(layout, contents)
    start = data.draw(st.integers(0, layout.size))
    stop = data.draw(st.integers(start, layout.size))
    assert read(layout, contents, start, stop) == whole[start:stop]


def test_an_archive_of_nothing_is_an_archive() -> None:
    with zipfile.ZipFile(io.BytesIO(read(layout_of({}), {}))) as opened:
        assert opened.namelist() == []


def test_a_name_that_is_no_utf8_keeps_its_bytes() -> None:
    name = b"model/\xff.bin".decode("utf-8", "surrogateescape")
    with zipfile.ZipFile(io.BytesIO(read(layout_of({name: b"x"}), {name: b"x"}))) as opened:
        (only,) = opened.infolist()
        assert only.filename.encode("cp437") == b"model/\xff.bin"
        assert opened.testzip() is None


def test_its_tag_changes_with_names_sizes_and_checksums_only() -> None:
    tags = {
        Layout(members).etag
        for members in (
            [Member("a", 1, 2)],
            [Member("b", 1, 2)],
            [Member("a", 2, 2)],
            [Member("a", 1, 3)],
            [Member("a", 1, 2), Member("b", 1, 2)],
        )
    }
    assert len(tags) == 5
    assert Layout([Member("a", 1, 2)]).etag == Layout([Member("a", 1, 2)]).etag


HUGE = (4 << 30) + 5
CRC32_OF_THAT_MANY_ZEROS = 0xB1C2A1A3


def test_more_than_four_gigabytes_are_read_back(tmp_path: Path) -> None:
    """The zeros between the headers are a hole of the file: it takes next to no disk."""
    members = [
        Member("a/small.txt", 5, zlib.crc32(b"small")),
        Member("a/huge.bin", HUGE, CRC32_OF_THAT_MANY_ZEROS),
        Member("a/behind.txt", 6, zlib.crc32(b"behind")),
    ]
    small = {0: b"small", 2: b"behind"}
    layout = Layout(members)
    file = tmp_path / "huge.zip"
    with file.open("wb") as out:
        for piece in layout.pieces(0, layout.size):
            if isinstance(piece, bytes):
                out.write(piece)
            elif piece.member in small:
                out.write(small[piece.member][piece.start : piece.stop])
            else:
                out.seek(piece.stop - piece.start, io.SEEK_CUR)
    assert file.stat().st_size == layout.size
    with zipfile.ZipFile(file) as opened:
        assert [each.file_size for each in opened.infolist()] == [5, HUGE, 6]
        assert opened.read("a/behind.txt") == b"behind"
        assert opened.testzip() is None


def test_more_members_than_sixteen_bits_count_are_read_back() -> None:
    contents = {f"f{n}": b"" for n in range(archive.LIMIT_16 + 10)}
    with zipfile.ZipFile(io.BytesIO(read(layout_of(contents), contents))) as opened:
        assert len(opened.namelist()) == len(contents)
