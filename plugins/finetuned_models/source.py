"""Finding the GGUF file that a user means, inside an archive or a folder too. No torch here."""

from __future__ import annotations

import re
import shutil
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from finetuned_sdk.errors import RefusedError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
_HEADER: Final = struct.Struct("<4sIQ")  # magic, version, number of tensors
_SPLIT: Final = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GGUFSource:
    """One GGUF file: ``path`` itself, or ``member`` of the zip archive at ``path``. ``size`` in bytes."""

    path: Path
    member: str | None
    size: int
    tensors: int

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePosixPath(self.member).name if self.member else self.path.name


def locate(file: str, member: str | None = None) -> GGUFSource:
    """The GGUF file behind ``file``: itself, or the one (or the named one) in an archive or a folder.

    Raises ``RefusedError`` with the remedy if there is none, more than one, or it is no GGUF of a version
    that can be read.
    """
    path = Path(file).expanduser()
    try:
        if path.is_dir():
            found = {str(p.relative_to(path)): p for p in sorted(path.rglob("*.gguf")) if p.is_file()}
            return _plain(found[_choose(file, list(found), member)])
        if not path.is_file():
            raise RefusedError(
                f"There is no file {file!r}; give the path of a GGUF file, or of a wheel, zip or folder with one.",
                param="file",
            )
        if zipfile.is_zipfile(path):
            return _zipped(path, file, member)
        return _plain(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise RefusedError(
            f"{file} cannot be read ({error}); check the file and its permissions.", param="file"
        ) from error


def unpack(source: GGUFSource, directory: Path) -> Path:
    """The GGUF file alone in ``directory``, which is made: a link to it, or its copy out of an archive.

    Alone, because transformers takes a tokenizer.json that lies beside the file for the file's own.
    """
    directory.mkdir(parents=True)
    target = directory / source.name
    if source.member is None:
        target.symlink_to(source.path.resolve())
        return target
    with (
        zipfile.ZipFile(source.path) as archive,
        archive.open(source.member) as packed,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(packed, file, 1 << 20)
    return target


def _plain(path: Path) -> GGUFSource:
    with path.open("rb") as file:
        tensors = _read_header(file, str(path))
    return GGUFSource(path, None, path.stat().st_size, tensors)


def _zipped(path: Path, file: str, member: str | None) -> GGUFSource:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".gguf")]
        chosen = _choose(file, names, member)
        with _opened(archive, chosen, file) as packed:
            tensors = _read_header(packed, f"{file}:{chosen}")
        return GGUFSource(path, chosen, archive.getinfo(chosen).file_size, tensors)


@contextmanager
def _opened(archive: zipfile.ZipFile, member: str, file: str) -> Iterator[IO[bytes]]:
    try:
        packed = archive.open(member)
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or a compression Python lacks
        raise RefusedError(
            f"{member} in {file} cannot be unpacked ({error}); unpack it yourself.", param="file"
        ) from error
    with packed:
        yield packed


def _choose(file: str, names: list[str], member: str | None) -> str:
    if member is not None:
        if member in names:
            return member
        raise RefusedError(
            f"{file} holds no {member!r}; it holds {_listed(names) or 'no GGUF file'}.", param="member"
        )
    if not names:
        raise RefusedError(f"{file} holds no GGUF file (*.gguf); point to the one you want.", param="file")
    if len(names) > 1:
        raise RefusedError(
            f"{file} holds {len(names)} GGUF files; say which with member: {_listed(names)}.", param="member"
        )
    return names[0]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _read_header(file: IO[bytes], what: str) -> int:
    if split := _SPLIT.search(what):
        raise RefusedError(
            f"{what} is one of {int(split[1])} parts; join them with llama.cpp's gguf-split --merge first.",
            param="file",
        )
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or head[:4] != MAGIC:
        raise RefusedError(f"{what} does not begin with 'GGUF', so it is no GGUF file.", param="file")
    _, version, tensors = _HEADER.unpack(head)
    if version not in VERSIONS:
        raise RefusedError(
            f"{what} is GGUF version {version}; versions 2 and 3 can be read, convert it with a newer llama.cpp.",
            param="file",
        )
    if tensors == 0:
        raise RefusedError(
            f"{what} holds no tensors (a vocabulary only?); give the file with the weights.", param="file"
        )
    return int(tensors)
