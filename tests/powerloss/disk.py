"""A disk that loses power: what was written and named, what of it was synced, and what may be left of the rest.

Stricter than any file system in use. Data: a file's fsync makes its earlier changes last and nothing else; of the
others any may be kept or lost, in any order, and the last one kept may be torn. Names: only the fsync of a directory
makes those in it last, however often the file is synced; others may be kept or lost each by itself. Only this is
taken for granted: a rename is one change, on disk when the directory of its new name is; and no name goes back to an
older meaning once a newer one is on disk.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from tests.powerloss.trace import Operation, TraceError

SECTOR: Final = 512  # bytes: a write may be torn between two of them


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a file's content; ``number`` is that of its operation."""

    number: int
    kind: str  # write, truncate, allocate
    offset: int
    data: bytes = b""

    def apply(self, content: bytearray) -> None:
        """Make it."""
        if self.kind == "truncate":
            del content[self.offset :]
        if self.offset > len(content):
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(self.data)] = self.data


def content(synced: bytes, changes: Sequence[Change]) -> bytes:
    """What a file holds if these reached the disk after what was synced."""
    if not changes:
        return synced
    made = bytearray(synced)
    for each in changes:
        each.apply(made)
    return bytes(made)


@dataclass(slots=True, eq=False)
class Node:
    """A file, a directory or a link, whatever its names are."""

    number: int
    kind: str  # file, directory, symlink
    target: bytes = b""
    live: bytearray = field(default_factory=bytearray)
    position: int = 0  # where the next write without an offset goes
    synced: bytes = b""
    synced_to: int = -1  # number of the newest change that is synced
    pending: list[Change] = field(default_factory=list)

    def sync(self, before: int) -> None:
        """All changes of operations before that number are on disk."""
        done = [each for each in self.pending if each.number < before]
        if done:
            self.synced, self.synced_to = content(self.synced, done), done[-1].number
            self.pending = self.pending[len(done) :]

    def token(self, changes: Sequence[Change]) -> tuple[object, ...]:
        """Tells contents of this file from each other without looking at them."""
        if list(changes) == self.pending[: len(changes)]:
            return (self.number, changes[-1].number if changes else self.synced_to)
        return (self.number, self.synced_to, *((each.number, len(each.data)) for each in changes))


Name = tuple[Node, str]


@dataclass(frozen=True, slots=True)
class Naming:
    """Names given and taken at once; on disk when ``home`` is synced."""

    number: int
    home: Node
    names: Mapping[Name, Node | None]


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a path after the crash, whatever becomes of the disk later. ``token`` stands for its content."""

    node: Node
    synced: bytes
    changes: tuple[Change, ...]
    token: tuple[object, ...]

    @property
    def content(self) -> bytes:
        """The bytes of a file."""
        return content(self.synced, self.changes)


Tree = dict[str, Entry]


class Disk:
    """The files below ``root`` while the operations are done to them one after another."""

    def __init__(self, root: Path) -> None:
        self._root = PurePosixPath(root)
        self._numbers = itertools.count()
        self._top = Node(next(self._numbers), "directory")
        self._live: dict[Name, Node] = {}
        self._synced: dict[Name, Node | None] = {}
        self._pending: list[Naming] = []
        self._done = 0

    def do(self, operation: Operation) -> None:  # noqa: PLR0912 - one flat table
        """One operation ends."""
        number, self._done = self._done, self._done + 1
        match operation.kind:
            case "create":
                node = self._find(operation.path)
                if node is None:
                    self._name(number, operation.path, self._new("file"))
                else:
                    node.position = 0
                    if operation.size == 0 and node.live:
                        self._change(node, Change(number, "truncate", 0))
            case "append":
                node = self._file(operation)
                self._change(node, Change(number, "write", node.position, operation.data))
                node.position += len(operation.data)
            case "write":
                self._change(self._file(operation), Change(number, "write", operation.offset, operation.data))
            case "truncate":
                self._change(self._file(operation), Change(number, "truncate", operation.size))
            case "allocate":
                node = self._file(operation)
                self._change(node, Change(number, "allocate", max(len(node.live), operation.size)))
            case "sync":
                self._sync(self._file(operation), operation.began)
            case "rename":
                self._rename(number, operation)
            case "link":
                self._name(number, operation.target, self._file(operation))
            case "symlink":
                node = self._new("symlink")
                node.target = operation.data
                self._name(number, operation.path, node)
            case "unlink":
                self._name(number, operation.path, None)
            case "mkdir":
                self._name(number, operation.path, self._new("directory"))
            case "mark":
                pass
            case other:
                raise TraceError(f"{other} is not modelled: {operation}")

    def settle(self) -> None:
        """Time passes: all that was done is on disk."""
        for node in {*self._live.values()}:
            node.sync(self._done)
        for naming in self._pending:
            self._synced.update(naming.names)
        self._pending.clear()

    # ---- what is left after a crash now -----------------------------------------------------------------

    def everything(self) -> Tree:
        """All that was done."""
        return self._tree(self._pending, lambda node: node.pending)

    def synced(self) -> Tree:
        """Only what was synced."""
        return self._tree((), lambda _: ())

    def names_only(self) -> Tree:
        """All names, and of the files' content what was synced: a rename before its data."""
        return self._tree(self._pending, lambda _: ())

    def lengths_only(self) -> Tree:
        """All names and lengths; what was not synced reads as zeros."""
        return self._tree(
            self._pending,
            lambda node: [Change(e.number, e.kind, e.offset, bytes(len(e.data))) for e in node.pending],
        )

    def data_only(self) -> Tree:
        """All content, and only the names that were synced."""
        return self._tree((), lambda node: node.pending)

    def some(self, chance: random.Random) -> Tree:
        """Any part of what was not synced, the last piece torn perhaps."""
        namings = [each for each in self._pending if chance.random() < 0.5]
        chosen: dict[int, list[Change]] = {}

        def changes(node: Node) -> list[Change]:
            if node.number not in chosen:
                kept = [each for each in node.pending if chance.random() < 0.5]
                if kept and len(kept[-1].data) > 1 and chance.random() < 0.5:
                    kept[-1] = _torn(kept[-1], chance)
                chosen[node.number] = kept
            return chosen[node.number]

        return self._tree(namings, changes)

    # ---- behind it --------------------------------------------------------------------------------------

    def _tree(self, namings: Sequence[Naming], changes: object) -> Tree:
        assert callable(changes)
        names: dict[Name, Node | None] = dict(self._synced)
        for naming in namings:
            names.update(naming.names)
        below: dict[int, list[tuple[str, Node]]] = {}
        for (home, name), node in names.items():
            if node is not None:
                below.setdefault(home.number, []).append((name, node))
        return dict(self._walk("", self._top, below, changes))

    def _walk(
        self, path: str, home: Node, below: Mapping[int, list[tuple[str, Node]]], changes: object
    ) -> Iterator[tuple[str, Entry]]:
        assert callable(changes)
        for name, node in sorted(below.get(home.number, ()), key=lambda each: each[0]):
            kept = tuple(changes(node))
            # What tells two contents apart for directories and links is the node alone.
            token = node.token(kept) if node.kind == "file" else (node.number,)
            if kept and all(not any(each.data) for each in kept):
                token = (*token, "zeros")
            yield f"{path}{name}", Entry(node, node.synced, kept, token)
            if node.kind == "directory":
                yield from self._walk(f"{path}{name}/", node, below, changes)

    def _new(self, kind: str) -> Node:
        return Node(next(self._numbers), kind)

    def _place(self, path: str) -> Name:
        parts = PurePosixPath(path).relative_to(self._root).parts
        node = self._top
        for part in parts[:-1]:
            node = self._live[node, part]
        return node, parts[-1]

    def _find(self, path: str) -> Node | None:
        return self._top if PurePosixPath(path) == self._root else self._live.get(self._place(path))

    def _file(self, operation: Operation) -> Node:
        node = self._find(operation.path)
        if node is None:
            raise TraceError(f"No such file in the model: {operation}")
        return node

    def _change(self, node: Node, change: Change) -> None:
        change.apply(node.live)
        node.pending.append(change)

    def _name(self, number: int, path: str, node: Node | None) -> None:
        place = self._place(path)
        self._assign(Naming(number, place[0], {place: node}))

    def _rename(self, number: int, operation: Operation) -> None:
        old, new = self._place(operation.path), self._place(operation.target)
        node = self._live[old]
        if self._live.get(new) is not node:
            self._assign(Naming(number, new[0], {old: None, new: node}))

    def _assign(self, naming: Naming) -> None:
        for name, node in naming.names.items():
            if node is None:
                self._live.pop(name, None)
            else:
                self._live[name] = node
        self._pending.append(naming)

    def _sync(self, node: Node, before: int) -> None:
        if node.kind == "file":
            node.sync(before)
            return
        for naming in [each for each in self._pending if each.home is node and each.number < before]:
            self._synced.update(naming.names)
            self._pending.remove(naming)
            self._supersede(naming)

    def _supersede(self, synced: Naming) -> None:
        """Older meanings of the same names cannot come any more."""
        for index, naming in enumerate(self._pending):
            if naming.number < synced.number and naming.names.keys() & synced.names.keys():
                left = {name: node for name, node in naming.names.items() if name not in synced.names}
                self._pending[index] = Naming(naming.number, naming.home, left)


def _torn(change: Change, chance: random.Random) -> Change:
    end = chance.randrange(1, len(change.data))
    if end > SECTOR:
        end -= end % SECTOR
    return Change(change.number, change.kind, change.offset, change.data[:end])


def write(tree: Tree, directory: Path) -> None:
    """Lay a tree out below an empty directory."""
    written: dict[int, Path] = {}
    for path, entry in tree.items():
        target = directory / path
        if entry.node.kind == "directory":
            target.mkdir(mode=0o700)
        elif entry.node.kind == "symlink":
            target.symlink_to(entry.node.target.decode())
        elif entry.node.number in written:
            target.hardlink_to(written[entry.node.number])
        else:
            target.write_bytes(entry.content)
            target.chmod(0o600)
            written[entry.node.number] = target
