from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.attempts.output import OutputLog, Redactor


def in_order(path: Path) -> list[Path]:
    """The files of a log, oldest first."""
    rotated = sorted(path.parent.glob(f"{path.name}.*"), key=lambda p: int(p.suffix[1:]))
    return [*rotated, path]


def test_rotation_loses_no_line_and_cuts_none(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    log = OutputLog(path, limit=500, files=1000)
    lines = [b"line %d %s\n" % (number, b"x" * (number % 40)) for number in range(2000)]
    data = b"".join(lines)
    for start in range(0, len(data), 97):  # cuts lines wherever it likes
        log.write(data[start : start + 97])
    log.close()
    files = [file.read_bytes() for file in in_order(path)]
    assert b"".join(files) == data
    assert len(files) > 50
    assert all(content.endswith(b"\n") for content in files)


def test_a_reader_that_keeps_its_file_sees_every_line(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    log = OutputLog(path, limit=300, files=7)
    seen = b""
    reader = path.open("rb")
    for number in range(500):
        log.write(b"line %d\n" % number)
        if number % 7 == 0:
            seen += reader.read()
            if os.fstat(reader.fileno()).st_ino != path.stat().st_ino:
                seen += reader.read()
                reader.close()
                reader = path.open("rb")
    seen += reader.read()
    reader.close()
    log.close()
    assert seen == b"".join(b"line %d\n" % number for number in range(500))


def test_the_oldest_file_goes_when_there_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    log = OutputLog(path, limit=100, files=3)
    for number in range(100):
        log.write(b"a line with number %d\n" % number)
    log.close()
    files = in_order(path)
    assert len(files) == 3
    assert files[-1].read_bytes().endswith(b"number 99\n")
    first, second = (int(file.suffix[1:]) for file in files[:2])
    assert second == first + files[0].stat().st_size
    assert files[0].read_bytes().startswith(b"a line with number ")


def test_a_rotated_file_is_named_for_the_position_of_its_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    log = OutputLog(path, limit=200, files=1000)
    data = b"".join(b"line %d\n" % number for number in range(500))
    for start in range(0, len(data), 77):
        log.write(data[start : start + 77])
    log.close()
    rotated = in_order(path)[:-1]
    assert len(rotated) > 10
    for file in rotated:
        content = file.read_bytes()
        start = int(file.suffix[1:])
        assert data[start : start + len(content)] == content


def test_a_line_without_an_end_is_cut_at_twice_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    log = OutputLog(path, limit=100, files=100)
    for _ in range(50):
        log.write(b"x" * 20)
    log.close()
    assert sum(file.stat().st_size for file in in_order(path)) == 1000
    assert path.stat().st_size <= 220


def test_a_full_disk_costs_output_and_says_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "output.log"
    log = OutputLog(path)
    log.write(b"before\n")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write(b"lost line\n")
        log.write(b"and another\n")
    log.write(b"after\n")
    log.close()
    assert path.read_bytes() == b"before\n[finetuned: 22 bytes of output could not be written]\nafter\n"


class FullDirectory:
    """Takes no new file while there is no room."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.has_room = False
        self._open = os.open
        patch.setattr(os, "open", self._opened)

    def _opened(self, path: str | Path, flags: int, mode: int = 0o777) -> int:
        if not self.has_room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._open(path, flags, mode)


def test_a_disk_without_room_for_a_new_file_costs_neither_output_nor_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "output.log"
    log = OutputLog(path, limit=100, files=4)
    lines = [b"a line with number %02d\n" % number for number in range(30)]
    for line in lines[:12]:
        log.write(line)
    disk = FullDirectory(monkeypatch)
    for line in lines[12:24]:  # more than four files' worth
        log.write(line)
    disk.has_room = True
    for line in lines[24:]:
        log.write(line)
    log.close()
    data = b"".join(file.read_bytes() for file in in_order(path))
    assert b"".join(lines[4:]) in data
    assert path.exists()


def test_output_begins_when_there_is_room_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDirectory(monkeypatch)
    log = OutputLog(tmp_path / "output.log")
    log.write(b"lost\n")
    disk.has_room = True
    log.write(b"kept\n")
    log.close()
    content = (tmp_path / "output.log").read_bytes()
    assert content == b"[finetuned: 5 bytes of output could not be written]\nkept\n"


def test_a_log_that_never_found_room_can_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDirectory(monkeypatch)
    log = OutputLog(tmp_path / "output.log")
    log.write(b"lost\n")
    log.close()
    assert not (tmp_path / "output.log").exists()


SECRETS = ["hf_abcdef", "hf_abc", "sk-1"]


PIECES = st.sampled_from(["hf_abcdef", "hf_abc", "sk-1", "hf_", "s", "k", "\n", "text "])


@given(st.lists(PIECES, max_size=20), st.lists(st.integers(1, 7), min_size=1, max_size=50))
def test_a_stream_is_masked_the_same_however_it_is_cut(pieces: list[str], sizes: list[int]) -> None:
    data = "".join(pieces).encode()
    redactor, out, position, turn = Redactor(SECRETS), b"", 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        out += redactor.feed(data[position : position + size])
        position, turn = position + size, turn + 1
    assert out + redactor.finish() == re.sub(b"hf_abcdef|hf_abc|sk-1", b"***", data)


def test_without_secrets_everything_passes_at_once() -> None:
    assert Redactor([]).feed(b"hf_abc") == b"hf_abc"
    assert Redactor([""]).feed(b"hf_abc") == b"hf_abc"


def test_text_that_only_begins_like_a_secret_is_not_lost() -> None:
    redactor = Redactor(["secret"])
    assert redactor.feed(b"the sec") == b"the "
    assert redactor.feed(b"ond") == b"second"
    assert redactor.feed(b"secr") + redactor.finish() == b"secr"


class Looked(bytes):
    """A secret that counts how often it is compared with an end of the output."""

    times = 0

    def startswith(self, *arguments: Any) -> bool:
        Looked.times += 1
        return super().startswith(*arguments)


def test_the_end_of_a_read_is_looked_at_once_however_many_secrets_are_in_it() -> None:
    redactor = Redactor(["aaaaaaaa", "b" * 8000])
    redactor._secrets = [Looked(each) for each in redactor._secrets]
    masked = redactor.feed(b"aaaaaaaabbbbbbb" * 4369)
    assert masked.count(b"***") == 4369
    assert Looked.times <= 2 * 8000
