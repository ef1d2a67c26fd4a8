"""What a run did to the disk, from strace's account of it: one operation a system call, in the order they ended."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: what changes files or names, or makes them last; some that we do not use, so that it is noticed when we do
CALLS: Final = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync,syncfs,sync_file_range,"
    "truncate,ftruncate,fallocate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,copy_file_range,sendfile"
)
#: written through shared memory and made anew by SQLite after a crash
IGNORED: Final = ("-shm",)

_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?P<opened>.*)", re.DOTALL)
_FILE = re.compile(r"(?:AT_FDCWD|\d+)<(?P<path>(?:\\x[0-9a-f]{2})+)>(?P<deleted>\(deleted\))?")
_TEXT = re.compile(r'"(?P<text>(?:\\x[0-9a-f]{2})*)"(?P<cut>\.\.\.)?')
_NUMBER = re.compile(r", (\d+)")


class TraceError(Exception):
    """Strace said something that is not understood: the model of the disk would be wrong."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One change, or one sync. ``path`` and ``target`` are absolute; ``began``: how many operations had ended before.

    ``kind``: create, write, append, truncate, allocate, sync, rename, link, symlink, unlink, mkdir, mark. ``offset`` of a
    write may be unknown (-1): where the last write ended. ``size`` is of a truncation or an allocation, in bytes.
    """

    kind: str
    path: str
    began: int
    target: str = ""
    data: bytes = b""
    offset: int = -1
    size: int = 0
    line: str = field(default="", compare=False)

    def __str__(self) -> str:
        """In one line, for people."""
        more = f" -> {self.target}" if self.target else ""
        length = f" {len(self.data)} bytes at {self.offset}" if self.data else ""
        return f"{self.kind} {self.path}{more}{length}"


def record(command: Sequence[str], trace: Path, environment: Mapping[str, str], *, timeout_s: float) -> None:
    """Run a command, and all that it starts, under strace. Raises ``CalledProcessError``."""
    strace = ["strace", "--follow-forks", "--seccomp-bpf", "--decode-fds=path", "-xx", "-s", str(1 << 24)]
    subprocess.run(
        [*strace, "-o", str(trace), "-e", f"trace={CALLS}", "-e", "signal=none", *command],
        env=dict(environment),
        check=True,
        timeout=timeout_s,
    )


def operations(trace: Path, root: Path, marks: Path) -> list[Operation]:
    """What was done below ``root``, and each line written to ``marks``: what a client was told by then."""
    found: list[Operation] = []
    waiting: dict[str, tuple[str, int]] = {}  # of each thread the call that has not ended
    with trace.open(encoding="ascii") as lines:
        for text in lines:
            line = _LINE.fullmatch(text.rstrip("\n"))
            if line is None:
                raise TraceError(text[:200])
            pid, rest, began = line["pid"], line["rest"], len(found)
            if rest.endswith("<unfinished ...>"):
                waiting[pid] = (rest.removesuffix("<unfinished ...>"), began)
                continue
            if resumed := _RESUMED.match(rest):
                first, began = waiting.pop(pid)
                rest = first + rest[resumed.end() :]
            if rest.startswith(("+++", "---")):
                continue
            for operation in _read(rest, began, marks):
                inside = any(
                    each == str(root) or each.startswith(f"{root}/")
                    for each in (operation.path, operation.target)
                )
                if (inside or operation.kind == "mark") and not operation.path.endswith(IGNORED):
                    found.append(operation)
    return found


def _read(call: str, began: int, marks: Path) -> Iterator[Operation]:
    match = _CALL.fullmatch(call)
    if match is None:
        if call.endswith("= ?") or "= ? <" in call:  # the thread was ended in the middle of it
            return
        raise TraceError(call[:200])
    if int(match["result"]) < 0:
        return
    arguments = match["arguments"]
    files = [("" if each["deleted"] else _plain(each["path"])) for each in _FILE.finditer(arguments)]
    texts = [_bytes(each["text"]) for each in _TEXT.finditer(arguments)]
    if any(each["cut"] for each in _TEXT.finditer(arguments)):
        raise TraceError(f"cut: {call[:200]}")
    for operation in _operations(match["name"], arguments, files, texts, match, began):
        if operation.kind in {"append", "write"} and operation.path == str(marks):
            yield Operation("mark", operation.path, began, data=operation.data)
        elif operation.path:  # a file without a name is nothing that could be found after a crash
            yield operation


def _operations(  # noqa: PLR0912 - one flat table of system calls
    name: str,
    arguments: str,
    files: list[str],
    texts: list[bytes],
    match: re.Match[str],
    began: int,
) -> Iterator[Operation]:
    result = int(match["result"])
    match name:
        case "open" | "openat" | "creat":
            opened = _FILE.search(match["opened"] and f"{result}{match['opened']}")
            if opened is None or not ("O_CREAT" in arguments or "O_TRUNC" in arguments or name == "creat"):
                return
            path = _plain(opened["path"])
            yield Operation(
                "create", path, began, size=0 if "O_TRUNC" in arguments or name == "creat" else -1
            )
        case "write" | "writev":
            if files:
                yield Operation("append", files[0], began, data=b"".join(texts)[:result])
        case "pwrite64" | "pwritev" | "pwritev2":
            if files:
                offset = int(_NUMBER.findall(arguments)[1 if name == "pwrite64" else -1])
                yield Operation("write", files[0], began, data=b"".join(texts)[:result], offset=offset)
        case "fsync" | "fdatasync":
            if files:
                yield Operation("sync", files[0], began)
        case "ftruncate" | "truncate":
            path = files[0] if name == "ftruncate" else _path(files, texts[0], 0)
            yield Operation("truncate", path, began, size=int(_NUMBER.findall(arguments)[-1]))
        case "fallocate":
            offset, size = _NUMBER.findall(arguments)[-2:]
            yield Operation("allocate", files[0], began, size=int(offset) + int(size))
        case "rename" | "renameat" | "renameat2" | "link" | "linkat":
            kind = "link" if name.startswith("link") else "rename"
            yield Operation(kind, _path(files, texts[0], 0), began, target=_path(files, texts[1], -1))
        case "symlink" | "symlinkat":
            yield Operation("symlink", _path(files, texts[1], 0), began, data=texts[0])
        case "unlink" | "unlinkat" | "rmdir":
            yield Operation("unlink", _path(files, texts[0], 0), began)
        case "mkdir" | "mkdirat":
            yield Operation("mkdir", _path(files, texts[0], 0), began)
        case _:
            # Weaker or wider than what the model knows; nothing below the root may rest on them.
            yield from (Operation(f"unknown {name}", each, began) for each in files)


def _path(files: Sequence[str], text: bytes, which: int) -> str:
    path = os.fsdecode(text)
    if path.startswith("/"):
        return os.path.normpath(path)
    return os.path.normpath(Path(files[which], path)) if files else ""


def _plain(escaped: str) -> str:
    return os.fsdecode(_bytes(escaped))


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))
