"""The files of artifacts on disk: found by their manifest, opened beneath the jobs' directory, read in blocks.

Nothing here follows a symbolic link, leaves the artifact's directory, or opens what is no regular file. A file whose
size is not its manifest's is refused. Everything here blocks: call it off the event loop.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from finetuned.access.server_paths import open_by_steps
from finetuned.domain import dependencies
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.job import Job
from finetuned.results.archive import Layout, Member, Piece
from finetuned_sdk.manifest import NAME, Entry

BLOCK_BYTES = 256 * 1024
LARGEST_MANIFEST = 64 << 20  # bytes; half a million files


@dataclass(frozen=True, slots=True)
class Location:
    """Where an artifact lies: ``relative`` to ``root``, the jobs' directory."""

    root: Path
    relative: Path


@dataclass(frozen=True, slots=True)
class Contents:
    """An artifact's files as its manifest lists them. ``is_directory`` says whether it is more than a single file."""

    name: str
    location: Location
    files: tuple[Entry, ...]
    is_directory: bool
    seen: Mapping[str, str] = field(default_factory=dict)  # what files were when looked at, by path

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(each.bytes for each in self.files)

    def entry(self, path: str) -> Entry:
        """One of the files. Raises ``NotFoundError``."""
        for each in self.files:
            if path in {each.path, shown(each.path)}:
                return each
        raise NotFoundError(
            f"The artifact {self.name!r} has no file {path!r}; GET …/artifacts/{self.name} lists its files.",
            param="path",
        )

    def path_of(self, entry: Entry) -> Path:
        """Where a file lies, relative to the jobs' directory."""
        return self.location.relative / entry.path if self.is_directory else self.location.relative

    def layout(self) -> Layout:
        """The zip archive of all files, below a folder of the artifact's name."""
        folder = PurePosixPath(self.name).name
        prefix = f"{folder}/" if self.is_directory else ""
        return Layout([Member(f"{prefix}{each.path}", each.bytes, each.crc32) for each in self.files])


def shown(path: str) -> str:
    """A path as it can be told: what is not UTF-8 in it becomes a replacement character."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def find(job: Job, name: str, attempt: int | None) -> dict[str, Any]:
    """The artifact of that name: of the attempt that is named, or the one published last.

    Raises ``NotFoundError``, or ``FilesRemovedError`` if it was one.
    """
    for each in reversed(job.artifacts):
        if each["name"] == name and attempt in {None, each["attempt"]}:
            dependencies.require_files(job)
            return each
    listed = ", ".join(sorted({each["name"] for each in job.artifacts})) or "none yet"
    where = "" if attempt is None else f" of attempt {attempt}"
    raise NotFoundError(f"Job {job.id} has no artifact {name!r}{where}; it has {listed}.", param="name")


def locate(jobs_dir: Path, job_id: str, artifact: dict[str, Any]) -> Location:
    """Where an artifact lies. What a worker says of its path is not relied on, only its name is."""
    home = Path(job_id, "attempts", str(artifact["attempt"]), "artifacts")
    return Location(jobs_dir, home / artifact["name"])


def contents(location: Location, name: str) -> Contents:
    """What an artifact consists of. Raises ``Rejected`` if it or its manifest is not as it was published."""
    try:
        with _opened(location.root, location.relative, os.O_PATH) as descriptor:
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        beside = location.relative.with_name(f"{location.relative.name}.{NAME}")
        manifest = location.relative / NAME if is_directory else beside
        with _opened(location.root, manifest, os.O_RDONLY) as descriptor:
            data = json.loads(_whole(descriptor))  # orjson takes no name that is not UTF-8
        files = tuple(Entry(each["path"], int(each["bytes"]), int(each["crc32"])) for each in data["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(f"The manifest of the artifact {name!r} cannot be read ({_reason(error)})") from None
    return Contents(name, location, files, is_directory)


def look(contents_: Contents, entries: Sequence[Entry]) -> Contents:
    """The same with what these files are now: from here on only they are read, and their tags are theirs.

    Raises ``Rejected`` if one of them is not there or has not the size that the manifest says.
    """
    seen: dict[str, str] = {}
    for entry in entries:
        with opened(contents_, entry) as descriptor:
            seen[entry.path] = _identity(descriptor)
    return replace(contents_, seen=seen)


def tag(contents_: Contents, entries: Sequence[Entry]) -> str:
    """What differs once one of these files, which were looked at, was written, replaced or renamed."""
    each = (f"{entry.crc32:08x}:{entry.bytes}:{contents_.seen[entry.path]}" for entry in entries)
    return blake2b("\n".join(each).encode(), digest_size=12).hexdigest()


def check(contents_: Contents, entries: Sequence[Entry]) -> None:
    """Raise ``Rejected`` if one of the files is not there or has not the size that the manifest says."""
    for entry in entries:
        with opened(contents_, entry):
            pass


def remove(location: Location) -> None:
    """Remove a single file and its manifest. Raises ``FileNotFoundError`` if it is gone, ``OSError`` for a directory."""
    path = location.root / location.relative
    path.unlink()
    path.with_name(f"{path.name}.{NAME}").unlink(missing_ok=True)


@contextmanager
def opened(contents_: Contents, entry: Entry) -> Iterator[int]:
    """A descriptor to read one of the files from. Raises ``Rejected`` if it is not as it was published."""
    path = contents_.path_of(entry)
    try:
        with _opened(contents_.location.root, path, os.O_RDONLY) as descriptor:
            size = os.fstat(descriptor).st_size
            if size != entry.bytes:
                raise _damaged(f"{entry.path} has {size} bytes; the manifest says {entry.bytes}")
            _compare(contents_, entry, descriptor)
            yield descriptor
    except OSError as error:
        raise _damaged(f"{entry.path} cannot be read ({_reason(error)})") from None


def read_file(contents_: Contents, entry: Entry, start: int, stop: int) -> Iterator[bytes]:
    """Bytes ``start`` to ``stop`` of a file, in blocks. Raises ``Rejected`` if it is not as it was published."""
    with opened(contents_, entry) as descriptor:
        while start < stop:
            block = os.pread(descriptor, min(BLOCK_BYTES, stop - start), start)
            if not block:
                raise _damaged(f"{entry.path} became shorter while it was read")
            _compare(contents_, entry, descriptor)  # before it is sent
            start += len(block)
            yield block


def _compare(contents_: Contents, entry: Entry, descriptor: int) -> None:
    if contents_.seen.get(entry.path, _identity(descriptor)) != _identity(descriptor):
        raise _damaged(f"{entry.path} changed while it was read")


def _identity(descriptor: int) -> str:
    """A file's inode and the time of its last change, which its owner cannot set."""
    found = os.fstat(descriptor)
    return f"{found.st_ino}:{found.st_ctime_ns}"


def read_archive(contents_: Contents, layout: Layout, start: int, stop: int) -> Iterator[bytes]:
    """Bytes ``start`` to ``stop`` of the archive, in blocks; small files and headers share one."""
    gathered: list[bytes] = []
    size = 0
    for part in _archive_parts(contents_, layout, start, stop):
        gathered.append(part)
        size += len(part)
        if size >= BLOCK_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _archive_parts(contents_: Contents, layout: Layout, start: int, stop: int) -> Iterator[bytes]:
    for piece in layout.pieces(start, stop):
        if isinstance(piece, Piece):
            yield from read_file(contents_, contents_.files[piece.member], piece.start, piece.stop)
        else:
            yield piece


@contextmanager
def _opened(root: Path, relative: Path, flags: int) -> Iterator[int]:
    """A descriptor of what lies there; for reading only of a regular file. Raises ``OSError``."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = open_by_steps(directory, relative)
    finally:
        os.close(directory)
    try:
        if flags & os.O_PATH:
            yield found
            return
        if not stat.S_ISREG(
            os.fstat(found).st_mode
        ):  # before it is opened: a FIFO would wait, a device may do anything
            raise OSError(f"{relative.name} is no regular file")
        readable = os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC)
        try:
            yield readable
        finally:
            os.close(readable)
    finally:
        os.close(found)


def _whole(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > LARGEST_MANIFEST:
        raise ValueError(f"it has {size} bytes")
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _damaged(what: str) -> Rejected:
    return Rejected(
        "artifact_changed",
        f"{what}: it was changed or removed after it was published. Restore it, or run the job again"
        " (`finetune retry`).",
    )
