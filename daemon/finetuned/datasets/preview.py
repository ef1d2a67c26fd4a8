"""A few rows of a dataset to look at: pages with a position, long values cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from finetuned.datasets import rows
from finetuned.datasets.content import Format
from finetuned.datasets.file import opened
from finetuned.datasets.rows import File, RawRow
from finetuned.domain.errors import InvalidRequestError
from finetuned.looking import Check, always

MOST_ROWS = 100
LONGEST_TEXT = 2000  # characters of a value
MOST_ITEMS = 100  # of a list or an object
DEEPEST = 8
PAGE_BYTES = 8 << 20  # read for one page; after them it is short

Read = Callable[[File, int, int], Iterator[RawRow]]
READERS: dict[str, Read] = {"jsonl": rows.jsonl, "csv": rows.csv_rows, "json": rows.json_rows}


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as it is shown: ``cut`` if something of it is left out, ``problem`` if it cannot be shown at all."""

    number: int
    value: Any
    cut: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Preview:
    """Rows in order; ``after`` is where the next page goes on, ``None`` at the end."""

    rows: list[ShownRow]
    after: str | None


def read(
    path: Path,
    written: Format | str,
    *,
    limit: int,
    after: str | None = None,
    size: int | None = None,
    roots: tuple[Path, ...] = (),
    identity: str | None = None,
    check: Check = always,
) -> Preview:
    """A page of rows. Blocks. ``size``, ``roots`` and ``identity`` are what the file must be, as ``file.opened`` says.

    ``check`` is called before each piece is read, and ends the work by raising. A page may be short or empty. Raises
    ``InvalidRequestError``, or ``Rejected`` if the file cannot be read any more or is another.
    """
    reader = READERS.get(written)
    if reader is None:
        raise InvalidRequestError(
            f"The daemon does not read {written}; audit the dataset with a model: the audit's preview.json shows rows.",
            code="preview_unsupported",
        )
    number, offset = position(after)
    shown: list[ShownRow] = []
    taken = 0
    with opened(path, size, roots, identity) as file:
        for row in reader(_Checked(file, check), number, offset):
            if taken >= PAGE_BYTES or (len(shown) == limit and not row.blank):
                return Preview(shown, f"{number}:{offset}")
            if not row.blank:
                value, cut = shortened(row.value)
                shown.append(ShownRow(row.number, value, cut, row.problem))
            taken += row.cost
            number, offset = row.after
            if row.last:
                break
    return Preview(shown, None)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A file that is read only as long as somebody waits for it."""

    file: BinaryIO
    check: Check

    def seek(self, offset: int, /) -> int:
        return self.file.seek(offset)

    def read(self, size: int, /) -> bytes:
        self.check()
        return self.file.read(size)

    def readline(self, size: int, /) -> bytes:
        self.check()
        return self.file.readline(size)


def position(after: str | None) -> tuple[int, int]:
    """Number and byte that a page's ``after`` stands for. Raises ``InvalidRequestError``."""
    if after is None:
        return 0, 0
    number, _, offset = after.partition(":")
    if not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in (number, offset)):
        raise InvalidRequestError(
            f"after: {after[:40]!r} is no position; give the next_after of the page before.", param="after"
        )
    return int(number), int(offset)


def shortened(value: Any, depth: int = 0) -> tuple[Any, bool]:
    """The value with long texts, lists and objects cut, and whether anything was."""
    if isinstance(value, str):
        text = value if value.isascii() else value.encode("utf-8", "replace").decode()
        return (text, False) if len(text) <= LONGEST_TEXT else (text[:LONGEST_TEXT] + "…", True)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return shortened(str(value))
    if not isinstance(value, (list, dict)):
        return value, False
    if depth == DEEPEST:
        return "…", True
    if isinstance(value, list):
        items = [shortened(each, depth + 1) for each in value[:MOST_ITEMS]]
        return [item for item, _ in items], len(value) > MOST_ITEMS or any(cut for _, cut in items)
    fields = [
        (*shortened(str(key)), *shortened(each, depth + 1)) for key, each in list(value.items())[:MOST_ITEMS]
    ]
    cut = len(value) > MOST_ITEMS or any(long or short for _, long, _, short in fields)
    return {key: item for key, _, item, _ in fields}, cut
